"""The store: one directory per run, and the truth that every table is a view of.

    runs/<name>-<run id>/
        recipe.yaml          what was run
        environment.json     where: versions, hardware, commit
        history.jsonl        losses and validation by step
        train.log            the run's own words; output.log: everything else it printed
        checkpoints/         the state after the last whole epoch
        weights.safetensors  final weights, with recipe and label map
        detections.json      what they find on the validation split
        result.json          written last and atomically: a run is complete iff it validates
        failure.json         what went wrong, if it did

A lock held by the process that trains says that a run is under way; the system drops it with the
process.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError

RESULT_VERSION = 1

State = Literal["complete", "failed", "running", "missing"]


@dataclass(frozen=True)
class Result:
    """What a finished run says of itself.

    `metrics` are COCO's on validation, in percent; `macs_b` and `params_m` are those of the network
    as trained.
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
    schema_version: int = RESULT_VERSION


@dataclass(frozen=True)
class Failure:
    """Why a run stopped: the error's kind and message, and its traceback."""

    error: str
    message: str
    traceback: str = ""


class Store:
    """Runs under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, run_id: str, name: str) -> Path:
        """Where the run is, or where it will be; it is found by its id, not its name."""
        return next(iter(self.root.glob(f"*-{run_id}")), self.root / f"{name}-{run_id}")

    def find(self, run_id: str) -> Path | None:
        """The run's folder, if it has one."""
        return next(iter(self.root.glob(f"*-{run_id}")), None)

    def state(self, run_id: str) -> State:
        """What is known of a run."""
        folder = self.find(run_id)
        if folder is None:
            return "missing"
        if read_result(folder) is not None:
            return "complete"
        if is_locked(folder):
            return "running"
        return "failed" if (folder / "failure.json").is_file() else "missing"

    def result(self, run_id: str) -> Result | None:
        """The result of a complete run."""
        folder = self.find(run_id)
        return read_result(folder) if folder is not None else None

    def failure(self, run_id: str) -> Failure | None:
        """Why a run failed, if it did."""
        folder = self.find(run_id)
        path = folder / "failure.json" if folder is not None else None
        if path is None or not path.is_file():
            return None
        return Failure(**json.loads(path.read_text()))

    def results(self) -> Iterator[Result]:
        """All complete runs."""
        for path in sorted(self.root.glob("*/result.json")):
            result = read_result(path.parent)
            if result is not None:
                yield result


def read_result(folder: Path) -> Result | None:
    """The result in a run's folder; None if there is none yet. Raises UserError if the file is not
    a result.
    """
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result: Result = TypeAdapter(Result).validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(p) for p in problem["loc"])
        raise UserError(
            f"{path}: {key or 'file'}: {problem['msg']}; remove the file to run this cell again"
        ) from None
    if result.schema_version != RESULT_VERSION:
        raise UserError(
            f"{path}: schema_version: {result.schema_version}, this version "
            f"reads {RESULT_VERSION}; use the release that wrote it, or another --runs folder"
        )
    return result


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
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run; raises UserError if another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is training this run; wait for it, or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether some process is training this run now."""
    path = folder / ".lock"
    if not path.is_file():
        return False
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def metric_values(results: Mapping[int, Result], metric: str) -> dict[int, float]:
    """One metric by seed."""
    return {seed: r.metrics[metric] for seed, r in results.items() if metric in r.metrics}
