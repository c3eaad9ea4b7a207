"""Is this machine fit to train, and are the data? Each check ends in a verdict: `ok`; `note`,
something to know that stops nothing; `mend`, something that would stop a run, with the way out.

What a check needs is imported inside it, so that a broken library is a verdict and not a traceback.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from experiments.provenance import processor, usable_cores

PACKAGE = "spinenet-reproduction"
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "asimd", "bf16")
LEAST_FREE_GB = 1.0
CPU_INFO = Path("/proc/cpuinfo")

Verdict = Literal["ok", "note", "mend"]


@dataclass(frozen=True)
class Check:
    """What was looked at, the verdict, what was found, and what to do where there is something."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""

    def line(self) -> str:
        """For people."""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.verdict:4}  {self.name}: {self.found}{advice}"


def checkup(runs: Path) -> Iterator[Check]:
    """All that concerns the machine; `runs` is the folder that runs will be written to."""
    yield from installation()
    yield cpu()
    yield gpu()
    yield disk(runs)
    yield runs_folder(runs)
    yield tracking()


def installation() -> Iterator[Check]:
    """Python and the libraries against what the package asks for."""
    try:
        asked = Distribution.from_name(PACKAGE)
    except PackageNotFoundError:
        yield Check(
            "package", "mend", f"{PACKAGE} is not installed", "run `pip install -e .` in its folder"
        )
        return
    yield python(asked.metadata["Requires-Python"])
    yield from libraries(asked.requires or ())


def python(asked: str) -> Check:
    """The interpreter's version."""
    here = platform.python_version()
    if here in SpecifierSet(asked):
        return Check("python", "ok", f"{here} ({asked})")
    return Check("python", "mend", f"{here}, and {asked} is needed", "make a new environment")


def libraries(asked: Sequence[str]) -> Iterator[Check]:
    """Torch, then what does not meet a requirement, or that all do."""
    wanted = [Requirement(text) for text in asked]
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    problems = {r.name: problem for r in wanted if (problem := _problem(r))}
    for requirement in wanted:
        if requirement.name in problems:
            way_out = f"run `pip install '{requirement}'`"
            yield Check(requirement.name, "mend", problems[requirement.name], way_out)
        elif requirement.name == "torch":
            yield Check("torch", "ok", f"{version('torch')} ({requirement.specifier})")
    if not problems:
        yield Check("libraries", "ok", f"all {len(wanted)} as asked for")


def _problem(requirement: Requirement) -> str:
    try:
        here = version(requirement.name)
    except PackageNotFoundError:
        return "not installed"
    fits = requirement.specifier.contains(here, prereleases=True)
    return "" if fits else f"{here}, and {requirement.specifier} is needed"


def cpu() -> Check:
    """Cores for this process, and the instruction sets that decide its speed."""
    has = instruction_sets()
    found = f"{usable_cores()} cores of {processor() or platform.machine()}"
    if not has:
        return Check("cpu", "ok", f"{found}, instruction sets unknown")
    found = f"{found}, {', '.join(has)}"
    if not {"avx2", "neon", "asimd"} & set(has):
        return Check("cpu", "note", found, "without AVX2 training takes several times as long")
    if {"avx512_bf16", "amx_bf16", "bf16"} & set(has):
        return Check("cpu", "ok", f"{found}: bfloat16 in hardware")
    return Check("cpu", "ok", found, "train.precision=bf16 gains nothing on it")


def instruction_sets() -> list[str]:
    """Those of INSTRUCTIONS that the processor says it has; empty where the system does not say."""
    if not CPU_INFO.is_file():
        return []
    for line in CPU_INFO.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return [name for name in INSTRUCTIONS if name in flags]
    return []


def gpu() -> Check:
    """The GPU that runs will use, and its memory."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("gpu", "mend", f"torch cannot be imported: {error}", "install torch again")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        listed = (f"{device.name} with {device.total_memory / 2**30:.0f} GiB" for device in devices)
        return Check("gpu", "ok", ", ".join(listed))
    if shutil.which("nvidia-smi"):
        why = "no CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"
        return Check(
            "gpu",
            "note",
            f"there is an NVIDIA driver, and torch ({why}) sees no GPU",
            "install a torch for this driver, or train on the processor",
        )
    return Check("gpu", "ok", "none; runs use the processor")


def disk(runs: Path) -> Check:
    """Room where the runs go."""
    free = shutil.disk_usage(_existing(runs)).free / 1e9
    if free < LEAST_FREE_GB:
        return Check(
            "disk", "mend", f"{free:.1f} GB free at {runs}", "make room or choose another --runs"
        )
    return Check("disk", "ok", f"{free:.0f} GB free at {runs}")


def runs_folder(runs: Path) -> Check:
    """Whether runs can be written."""
    there = _existing(runs)
    try:
        with tempfile.TemporaryFile(dir=there):
            return Check("runs", "ok", f"{runs} can be written")
    except OSError as error:
        way_out = f"allow writing to {there} or choose another --runs"
        return Check("runs", "mend", f"{runs} cannot be written: {error.strerror}", way_out)


def tracking() -> Check:
    """Where metrics go beside the store."""
    try:
        from experiments.tracking import choose_mode
    except (ImportError, OSError) as error:
        return Check("wandb", "mend", f"cannot be imported: {error}", "install wandb again")
    mode = choose_mode("auto")
    advice = {
        "online": "",
        "offline": "`wandb login` sends runs as they go, `wandb sync` later",
        "disabled": "WANDB_MODE says so",
    }
    return Check("wandb", "ok", mode, advice[mode])


def data(source: str, profile: str | None, changes: Sequence[str]) -> Iterator[Check]:
    """The user's data for the recipe that they are for: the same report as before training."""
    from datamodules import ClassSourceConfig, DataError, open_data
    from experiments.data_report import report_data
    from experiments.single import compose_recipe
    from experiments.study_file import parse_source

    labelled = isinstance(parse_source(source), ClassSourceConfig)
    name = "classifier" if labelled else "retinanet"
    recipe = compose_recipe(name, profile=profile, data=source, changes=list(changes), seed=None)
    try:
        found = report_data(open_data(recipe.data.source, on_error=recipe.data.on_error), [recipe])
    except DataError as error:
        yield Check("data", "mend", str(error))
        return
    noted = {"anchors"} if any(fit.better_share is not None for fit in found.fits) else set()
    if any(schedule.better_epochs is not None for schedule in found.schedules):
        noted.add("schedule")
    for line in found.lines():
        what, _, said = line.partition(": ")
        yield Check(what, "note" if what in noted else "ok", said)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
