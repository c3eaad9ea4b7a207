"""The store at one moment: every run with its state, and those that cannot be read.

What is told from one snapshot agrees with itself, and a damaged file is a line in it rather than
its end. Files are read again only when they changed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from experiments.errors import UserError
from experiments.progress import Progress, read_progress
from experiments.store import RUN_FOLDER, Record, Result, State, Store, read_record

Stamp = tuple[int, int, int] | None
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One run's folder: what the store says of it, `damage` where that cannot be read, and how far
    it is while it is not complete.
    """

    run_id: str
    folder: Path
    record: Record
    damage: str = ""
    progress: Progress | None = None

    @property
    def name(self) -> str:
        """What the folder calls it."""
        return self.folder.name.rpartition("-")[0]

    @property
    def state(self) -> State | str:
        """The store's state; `damaged`, or `stopped` where a run neither goes on nor failed."""
        if self.damage:
            return "damaged"
        return "stopped" if self.record.state == "missing" else self.record.state


class Snapshot(Store):
    """A store that looks at nothing any more: its runs are given, and the folders of searches. The
    version changes with any run's state and any search's settings.
    """

    def __init__(
        self,
        root: Path,
        runs: Mapping[str, Run],
        version: int,
        searches: Sequence[Path] = (),
    ) -> None:
        super().__init__(root)
        self.runs, self.version, self.searches = runs, version, tuple(searches)

    def records(self, run_ids: Iterable[str]) -> dict[str, Record]:
        return {i: self.runs[i].record if i in self.runs else Record() for i in run_ids}

    def results(self) -> Iterator[Result]:
        yield from (r.record.result for r in self.runs.values() if r.record.result is not None)

    def in_state(self, *states: str) -> list[Run]:
        """Runs in one of these states, by name."""
        return [run for run in self.by_name if run.state in states]

    @cached_property
    def by_name(self) -> list[Run]:
        """All runs, by name."""
        return sorted(self.runs.values(), key=lambda run: (run.name, run.run_id))

    def _folders(self) -> dict[str, Path]:
        return {run_id: run.folder for run_id, run in self.runs.items()}


class FileCache:
    """What was read from files, kept until they change."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Path], tuple[Any, Any]] = {}

    def get(self, what: str, path: Path, stamp: Any, read: Callable[[Path], T]) -> T:
        """`read(path)`, or what it gave before if `stamp` is as it was then."""
        kept = self._known.get((what, path))
        if kept is None or kept[0] != stamp:
            kept = self._known[what, path] = (stamp, read(path))
        value: T = kept[1]
        return value


class Lookout:
    """Takes snapshots of the runs in some folders, the first of which that has a run keeps it, and
    of the searches in others.
    """

    def __init__(self, roots: Sequence[Path], searches: Sequence[Path] = ()) -> None:
        self.roots, self.searches = tuple(roots), tuple(searches)
        self.files = FileCache()

    def look(self) -> Snapshot:
        """The store as it is now."""
        runs: dict[str, Run] = {}
        stamps = []
        for folder, run_id in self._folders():
            if run_id not in runs:
                stamp = (stamp_of(folder / "result.json"), stamp_of(folder / "failure.json"))
                runs[run_id] = run = self._run(folder, run_id, stamp)
                stamps.append((run_id, stamp, run.state))
        settings = [path for root in self.searches for path in sorted(root.glob("*/search.json"))]
        version = hash((tuple(stamps), tuple((path, stamp_of(path)) for path in settings)))
        return Snapshot(self.roots[0], runs, version, [path.parent for path in settings])

    def _folders(self) -> Iterator[tuple[Path, str]]:
        for root in self.roots:
            found = os.scandir(root) if root.is_dir() else ()
            for name in sorted(entry.name for entry in found if entry.is_dir()):
                if match := RUN_FOLDER.fullmatch(name):
                    yield root / name, match["id"]

    def _run(self, folder: Path, run_id: str, stamp: tuple[Stamp, Stamp]) -> Run:
        if stamp[0] is not None:  # complete or damaged: nothing but these files can change it
            return self.files.get("run", folder, stamp, lambda path: _read(path, run_id))
        run = _read(folder, run_id)
        return Run(run_id, folder, run.record, run.damage, read_progress(folder))


def stamp_of(path: Path) -> Stamp:
    """What changes with a file's content; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(folder: Path, run_id: str) -> Run:
    try:
        record = read_record(folder)
        damage = "" if record.result is None else _damage(record.result)
    except UserError as error:
        record, damage = Record(), str(error).replace(f"{folder}{os.sep}", "")
    except (OSError, ValueError, TypeError) as error:
        record, damage = Record(), f"cannot be read: {error!r}"
    return Run(run_id, folder, Record() if damage else record, damage)


def _damage(result: Result) -> str:
    """What of a result the pages could not show, although the store's reader lets it pass."""
    try:
        parts = (result.recipe["model"]["backbone"], result.recipe["data"]["source"])
        readable = all(isinstance(part["kind"], str) for part in (*parts, result.recipe["model"]))
    except (LookupError, TypeError):
        readable = False
    if not readable:
        return "result.json: recipe: is none; remove the file to run this cell again"
    numbers = (*result.metrics.values(), *result.by_class.values(), result.macs_b, result.params_m)
    if not all(map(math.isfinite, numbers)):
        return "result.json: metrics: not all are numbers; remove the file to run this cell again"
    return ""
