"""The store: one directory per run, and the truth that every table is a view of.

    runs/<name>-<run id>/
        recipe.yaml          what was run
        environment.json     where: versions, hardware, commit
        code.json            the code that began it, which may go on with it
        history.jsonl        losses and validation by step
        train.log            the run's own words; output.log: everything else it printed
        progress.json        how far it is, while it is not finished
        checkpoints/         the last two states that training can go on from
        weights.safetensors  final weights, with recipe and label map; best.safetensors: of the
                             best validation
        detections.json      what they find on the validation split; ranks.json of a classifier
        result.json          written last and atomically: a run is complete iff it validates
        failure.json         what went wrong, if it did

A lease of the process that trains, in `.lease/`, says that a run is under way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError, first_problem
from experiments.leases import HeldError, is_locked

RESULT_VERSION = 1
CHECKPOINTS = "checkpoints"  # the folder of a run's
RUN_FOLDER = re.compile(r"(?P<name>[^/\\]+)-(?P<id>[0-9a-f]{12})")

DIVERGED = "NonFiniteLossError"  # what a failure is called whose loss was not finite

State = Literal["complete", "failed", "running", "missing"]


@dataclass(frozen=True)
class Result:
    """What a finished run says of itself.

    `metrics` are the task's on validation, in percent: COCO's, or top-1 and top-5; `macs_b` and
    `params_m` are those of the network as trained. `deviates` labels what a user changed of the
    schedule; `cells` are the entries of grids that it was run for, as STUDY/VARIANT@PROFILE;
    `tracker_seconds` went by in W&B's logger; `left_out` are damaged pictures by split.
    """

    run_id: str
    name: str
    seed: int
    metrics: dict[str, float]
    macs_b: float
    params_m: float
    num_classes: int
    seconds: float
    train_seconds: float
    images_per_second: float
    images_seen: int
    data_fingerprint: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    by_class: dict[str, float] = field(default_factory=dict)
    deviates: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    tracker_seconds: float = 0.0
    left_out: dict[str, int] = field(default_factory=dict)
    schema_version: int = RESULT_VERSION

    @property
    def all_seconds(self) -> float:
        """Of all attempts, at the speed of the last, which `seconds` are of."""
        training = self.images_seen / self.images_per_second if self.images_per_second else 0.0
        return self.seconds - self.train_seconds + max(training, self.train_seconds)


@dataclass(frozen=True)
class Failure:
    """Why a run stopped: the error's kind and message, and its traceback."""

    error: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Record:
    """What the store has of a run; a failure is that of its last attempt, and none if complete."""

    state: State = "missing"
    result: Result | None = None
    failure: Failure | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it is known what comes of the run. A loss that was not finite would not be
        another time; any other failure says nothing of the network.
        """
        diverged = self.failure is not None and self.failure.error == DIVERGED
        return self.state == "complete" or diverged


class Store:
    """Runs under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, run_id: str, name: str) -> Path:
        """Where the run is, or where it will be; it is found by its id, not its name."""
        return self.find(run_id) or self.root / f"{name}-{run_id}"

    def find(self, run_id: str) -> Path | None:
        """The run's folder, if it has one."""
        return self._folders().get(run_id)

    def folders(self) -> list[Path]:
        """Every run's folder, by name."""
        return sorted(self._folders().values())

    def records(self, run_ids: Iterable[str]) -> dict[str, Record]:
        """What is known of each run, from one look at the root and one at each of their folders."""
        folders = self._folders()
        return {i: read_record(folders[i]) if i in folders else Record() for i in run_ids}

    def state(self, run_id: str) -> State:
        """What is known of a run."""
        return self.records([run_id])[run_id].state

    def result(self, run_id: str) -> Result | None:
        """The result of a complete run."""
        return self.records([run_id])[run_id].result

    def failure(self, run_id: str) -> Failure | None:
        """Why a run failed, if it did and has not succeeded since."""
        return self.records([run_id])[run_id].failure

    def drop_checkpoints(self, run_id: str) -> None:
        """Make room among hundreds of runs: a complete one needs no state to go on from."""
        folder = self.find(run_id)
        if folder is not None and read_result(folder) is not None:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

    def results(self) -> Iterator[Result]:
        """All complete runs."""
        for folder in self.folders():
            result = read_result(folder)
            if result is not None:
                yield result

    def _folders(self) -> dict[str, Path]:
        """Folders by run id, which is what follows the last dash of their names."""
        if not self.root.is_dir():
            return {}
        names = sorted((entry.name for entry in os.scandir(self.root)), reverse=True)
        runs = (name for name in names if "-" in name and not name.startswith("."))
        return {name.rpartition("-")[2]: self.root / name for name in runs}


def refuse_twin(folder: Path, run_id: str) -> None:
    """Raise HeldError where the run has another folder beside this one, in which it is trained or
    complete: two workers may know its network by different names, and both begin. Whoever is
    refused finds that folder when it next asks.
    """
    for entry in os.scandir(folder.parent):
        twin = folder.with_name(entry.name)
        if entry.name.rpartition("-")[2] != run_id or entry.name == folder.name:
            continue
        if is_locked(twin) or read_result(twin) is not None:
            raise HeldError(f"{twin}: this run is there, another process has it or has done it")


def read_record(folder: Path) -> Record:
    """What a run's folder says. Raises UserError as `read_result` does."""
    result = read_result(folder)
    if result is not None:
        return Record("complete", result)
    failure = read_failure(folder)
    if is_locked(folder):
        return Record("running", failure=failure)
    return Record("missing" if failure is None else "failed", failure=failure)


def read_failure(folder: Path) -> Failure | None:
    """Why the run in a folder failed; None if it did not. A file that is damaged says so itself."""
    path = folder / "failure.json"
    try:
        return _failure_type().validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Failure("Unreadable", f"{path}: {error.strerror}")
    except ValidationError:
        return Failure("Damaged", f"{path}: damaged; run the cell again to know why it failed")


def read_result(folder: Path) -> Result | None:
    """The result in a run's folder; None if there is none yet. Raises UserError if the file is not
    a result.
    """
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result = _result_type().validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; allow it to be read") from None
    except ValidationError as error:
        key, told = first_problem(error)
        raise UserError(
            f"{path}: {key or 'file'}: {told}; remove the file to run this cell again"
        ) from None
    if result.schema_version != RESULT_VERSION:
        raise UserError(
            f"{path}: schema_version: {result.schema_version}, this version "
            f"reads {RESULT_VERSION}; use the release that wrote it, or another --runs folder"
        )
    return result


@cache
def _result_type() -> TypeAdapter[Result]:
    return TypeAdapter(Result)  # building it takes as long as reading a hundred results


@cache
def _failure_type() -> TypeAdapter[Failure]:
    return TypeAdapter(Failure)


def write_result(folder: Path, result: Result) -> None:
    """Complete a run."""
    write_atomically(folder / "result.json", json.dumps(asdict(result), indent=1))
    (folder / "failure.json").unlink(missing_ok=True)


def write_failure(folder: Path, failure: Failure) -> None:
    """Mark a run as failed."""
    write_atomically(folder / "failure.json", json.dumps(asdict(failure), indent=1))


def write_atomically(path: Path, text: str) -> None:
    """The whole file or nothing: written beside it, flushed to disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until what was written to a file is on disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def metric_values(results: Mapping[int, Result], metric: str) -> dict[int, float]:
    """One metric by seed."""
    return {seed: r.metrics[metric] for seed, r in results.items() if metric in r.metrics}
