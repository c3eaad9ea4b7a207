"""What of a store can go: checkpoints of complete runs, what failed or was never begun again, runs
that nobody asks for; and what killed processes left behind. Nothing that is under way is touched.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.archive import STAGING
from experiments.errors import UserError
from experiments.leases import HeldError, clear, is_locked, lock
from experiments.search.places import TABLE
from experiments.store import CHECKPOINTS, RUN_FOLDER, Store, read_record, read_result

GONE = ".gone"  # the end of the name of a folder that is being removed

Kind = Literal["checkpoints", "failed", "unasked", "drafts"]
KINDS: dict[Kind, str] = {
    "checkpoints": "checkpoints of complete runs",
    "failed": "runs that failed and were not done since; one whose loss diverged has said all",
    "unasked": "runs that no study, no search and no table of networks asks for",
    "drafts": "what killed processes left",
}


@dataclass(frozen=True)
class Leftover:
    """Something that can go: of which kind, of which run, where, how big."""

    kind: Kind
    run: Path
    path: Path
    size_bytes: int


def leftovers(store: Store, kinds: Collection[Kind], asked: Collection[str]) -> list[Leftover]:
    """What can go of these kinds; `asked` are the ids of runs that are wanted."""
    found: list[Leftover] = []
    for folder in store.folders():
        if RUN_FOLDER.fullmatch(folder.name) and folder.is_dir():
            found += _of_run(folder, kinds, asked)
    if "drafts" in kinds:
        found += [Leftover("drafts", path, path, _size(path)) for path in _abandoned(store.root)]
    return found


def remove(found: Sequence[Leftover]) -> list[Leftover]:
    """Remove what can go, run by run, unless a worker has the run by now or has done it since it
    was listed as failed; what was removed.
    """
    gone = []
    for item in found:
        try:
            with lock(item.run):
                is_complete = read_result(item.run) is not None
                if item.kind == "failed" and is_complete:
                    continue
                aside = _put_aside(item.path)
        except HeldError:
            continue
        if aside is not None:
            shutil.rmtree(aside)  # without the lease, whose file is open, which NFS would keep
        if is_complete:
            clear(item.run)
        gone.append(item)
    return gone


def asked_runs(
    store: Store, searches: Path, study_files: Sequence[str] = (), tables: Sequence[Path] = ()
) -> set[str]:
    """Ids of the runs that a shipped study or a study file asks for, at any profile, on its own
    data and on each data set that the store has results of; a search of these, with its finalists;
    or a table of trained networks, the suite's own or one of these.
    """
    from experiments.search import table
    from experiments.search.asynchronous import opened
    from experiments.search.candidates import RunMissingError
    from experiments.search.config import FILE
    from experiments.search.finals import finals
    from experiments.search.report import standings
    from experiments.snapshot import Lookout
    from experiments.study_grids import StudyGrids

    snapshot = Lookout([store.root]).look()
    wanted = {cell for grid in StudyGrids(study_files).all(snapshot) for cell in grid.by_run}
    for folder in sorted(path.parent for path in searches.glob(f"*/{FILE}")):
        made = opened(folder, store)
        with suppress(RunMissingError):  # its runs are in another store
            made.replay()
        wanted.update(made.journal.runs())  # also of samples after a run that is gone
        wanted |= {candidate.cell.run_id for candidate in made.asked}
        wanted |= {cell.run_id for cell in finals(made, standings(made.tried))}
    return wanted.union(*map(table.asked, (TABLE, *tables)))


def _of_run(folder: Path, kinds: Collection[Kind], asked: Collection[str]) -> Iterator[Leftover]:
    try:
        record = read_record(folder)
    except UserError:
        return  # a damaged result is for a person to look at
    if record.state == "running":
        return
    whole: Kind | None = None
    if "unasked" in kinds and folder.name.rpartition("-")[2] not in asked:
        whole = "unasked"
    elif "failed" in kinds and record.state == "failed" and not record.is_settled:
        whole = "failed"
    if whole is not None:
        yield Leftover(whole, folder, folder, _size(folder))
        return
    saved = folder / CHECKPOINTS
    if "checkpoints" in kinds and record.state == "complete" and saved.is_dir():
        yield Leftover("checkpoints", folder, saved, _size(saved))
    if "drafts" in kinds:
        for path in _drafts(folder):
            yield Leftover("drafts", folder, path, _size(path))


def _drafts(folder: Path) -> Iterator[Path]:
    """Files that were written and never got their name."""
    for path in folder.iterdir():
        if path.is_file() and (path.name.startswith(".") or path.suffix == ".partial"):
            yield path


def _abandoned(root: Path) -> list[Path]:
    """Folders whose removal or import was killed half-way."""
    gone, imports = sorted(root.glob(f".*{GONE}")), sorted(root.glob(f"{STAGING}*"))
    return [*gone, *(path for path in imports if not is_locked(path))]


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    files = (Path(root) / name for root, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)


def _put_aside(path: Path) -> Path | None:
    """Remove a file. A folder goes at once, under a name that no run has: that name, for its files
    to be removed one by one.
    """
    if path.is_dir():
        return path.rename(path.with_name(f".{uuid.uuid4().hex}{GONE}"))
    path.unlink(missing_ok=True)
    return None
