"""How long the commands take that train nothing, beside what importing torch alone takes: the help,
the table of models, and a study whose runs are all there, in a store of two thousand results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.bench.contest import Contest, Settings, Side
from experiments.bench.detectors import Step
from experiments.recipe import to_tree
from experiments.store import Result, write_result
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study
from experiments.subprocesses import python

COMMAND = "from experiments.cli import main; main()"
FLOOR = "import torch"
STORED = 2000
STUDY, PROFILE = "ladder", "embedded"


def contests(settings: Settings) -> Iterator[Contest]:
    """Each command, a whole process of it, against a process that imports torch and ends."""
    with TemporaryDirectory() as folder:
        write_store(Path(folder), 20 if settings.quick else STORED)
        commands: dict[str, list[str]] = {"--help": ["--help"]}
        if not settings.quick:
            commands["models"] = ["models"]
            commands[f"status, {STORED:,} runs"] = ["status", STUDY, "--runs", folder]
            commands[f"reproduce {STUDY}, all there"] = ["reproduce", STUDY, "--runs", folder]
        for name, arguments in commands.items():
            yield Contest(
                name=f"spinenet {name}, against import torch",
                ours=Side(f"spinenet {name}", _process(COMMAND, arguments, settings)),
                theirs=Side(FLOOR, _process(FLOOR, [], settings)),
            )


def _process(code: str, arguments: list[str], settings: Settings) -> Step:
    return lambda: python(code, *arguments, threads=settings.threads)


def write_store(folder: Path, count: int) -> None:
    """A store in which the study's own cells are complete, among `count` results in all.

    The scores are no measurement; they are there to be read.
    """
    size = load_profile(PROFILE)
    grid = cells(load_study(STUDY), Selection(profile=size, seeds=size.seeds))
    for number in range(max(count, len(grid))):
        cell = grid[number % len(grid)]
        result = Result(
            run_id=cell.run_id,
            name=cell.recipe.name,
            seed=cell.seed,
            metrics={"AP": 30.0 + number % 7, "AP50": 50.0, "AP75": 30.0},
            macs_b=0.2,
            params_m=1.5,
            num_classes=11,
            seconds=100.0,
            train_seconds=90.0,
            images_per_second=50.0,
            images_seen=4800,
            data_fingerprint="0" * 64,
            recipe=to_tree(cell.recipe),
            environment={"processor": "none", "cores": 1},
        )
        if number >= len(grid):  # a run of something else
            result = replace(result, run_id=f"{number:012x}")
        write_result(folder / f"{result.name}-{result.run_id}", result)
