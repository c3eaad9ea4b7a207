"""A benchmark's file: what was measured, where and how, `<folder>/<name>.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from experiments.allocator import keep_freed_memory
from experiments.bench.contest import Benchmark, Contest, Settings, Skipped
from experiments.bench.measure import Outcome, measure
from experiments.errors import UserError, first_problem
from experiments.provenance import environment
from experiments.store import write_atomically

RECORD_VERSION = 1
PEERS = ("faster-coco-eval",)


@dataclass(frozen=True)
class Record:
    """Everything known of one benchmark's run."""

    benchmark: str
    title: str
    command: str
    settings: Settings
    environment: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    skipped: tuple[Skipped, ...] = field(default=())
    schema_version: int = RECORD_VERSION

    @property
    def name(self) -> str:
        """The benchmark's, with what is not usual in how it was held."""
        parts = [self.benchmark]
        if self.settings.device == "cuda":
            parts.append("cuda")
        if self.settings.precision == "bf16":
            parts.append("bf16")
        if self.settings.compiled:
            parts.append("compiled")
        return "-".join(parts)


Watch = Callable[[str, int], None]
"""Told a contest's name and the rounds that are done, 0 while it is set up."""


def hold(
    name: str, benchmark: Benchmark, settings: Settings, watch: Watch = lambda name, done: None
) -> Record:
    """Hold all contests of a benchmark, in a process that keeps its memory as every run does: that
    is good for both sides.
    """
    keep_freed_memory()
    outcomes: list[Outcome] = []
    skipped: list[Skipped] = []
    watch(name, 0)
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        for contest in benchmark.contests(settings):
            if isinstance(contest, Skipped):
                skipped.append(contest)
            else:
                outcomes.append(_hold(contest, settings, watch))
    finally:
        torch.set_num_threads(before)
    return Record(
        benchmark=name,
        title=benchmark.title,
        command=f"spinenet bench {name} {settings.command}",
        settings=settings,
        environment=machine(settings),
        outcomes=tuple(outcomes),
        skipped=tuple(skipped),
    )


def _hold(contest: Contest, settings: Settings, watch: Watch) -> Outcome:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        watch(contest.name, done)

    watch(contest.name, 0)
    return measure(contest, settings, count)


def machine(settings: Settings) -> dict[str, Any]:
    """Where a benchmark ran: `provenance.environment` with threads, oneDNN and the peers."""
    facts = environment()
    onednn = re.search(r"MKL-DNN (v[\d.]+)", torch.__config__.show())
    peers = {name: found for name in PEERS if (found := _version(name)) is not None}
    facts["packages"] |= peers
    return facts | {"threads": settings.threads, "onednn": onednn[1] if onednn else None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write(folder: Path, record: Record) -> Path:
    """Write a record, whole or not at all; where it stands."""
    path = folder / f"{record.name}.json"
    write_atomically(path, json.dumps(asdict(record), indent=1) + "\n")
    return path


def read(path: Path) -> Record:
    """Read a record. Raises UserError that names the file and the field."""
    try:
        record: Record = TypeAdapter(Record).validate_json(path.read_bytes())
    except ValidationError as error:
        key, told = first_problem(error)
        raise UserError(f"{path}: {key or 'file'}: {told}; measure again or remove it") from None
    if record.schema_version != RECORD_VERSION:
        raise UserError(
            f"{path}: schema_version: {record.schema_version}, this version reads "
            f"{RECORD_VERSION}; measure again or remove it"
        )
    return record


def read_all(folder: Path) -> Iterator[Record]:
    """The records of a folder, by name. Toy sizes are refused: they are no measurement."""
    for path in sorted(folder.glob("*.json")):
        record = read(path)
        if record.settings.quick:
            raise UserError(
                f"{path}: settings.quick: true, which measures nothing; "
                f"run spinenet bench {record.benchmark} without --quick, or remove the file"
            )
        yield record
