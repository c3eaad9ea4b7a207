"""What a cluster is asked for: a small YAML file for `--cluster`, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from experiments.compose import read_yaml
from experiments.errors import UserError, did_you_mean, first_problem
from experiments.study import Cell

LIBRARIES = {"ray": "Ray", "submitit": "submitit"}  # as they are called


@dataclass(frozen=True)
class RayConfig:
    """A Ray cluster, and what each run takes of it.

    `address` is HOST:PORT or ray://HOST:PORT; "auto" is the cluster that this machine belongs to,
    and without one Ray is started here. `cpus` 0 are as many as the recipe has threads, for each
    process; without `gpus` a process gets one where the cluster has any, and a part such as 0.5 is
    shared between runs. A run whose machine is lost starts again `retries` times, from its last
    checkpoint. `environment` are variables of its processes.
    """

    kind: Literal["ray"] = "ray"
    address: str = ""
    cpus: int = 0
    gpus: float | None = None
    memory_gb: float = 0
    retries: int = 3
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("cpus", "gpus", "memory_gb", "retries"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative")
        if (self.gpus or 0) > 1:
            raise ValueError("gpus is of one process, at most 1; several GPUs are --devices")


@dataclass(frozen=True)
class SlurmConfig:
    """A SLURM cluster, and what each run's job asks for.

    `account`, `partition`, `qos` and `constraint` are left to the cluster where empty. `cpus` 0
    are as many as the recipe has threads, for each process; with `gpu` each process has one.
    `nodes` machines share a run. A job that reaches its `time` or is preempted goes on in the queue
    from its last checkpoint, after a limit at most `timeouts` times; it is told `warn_s` seconds
    before. Jobs of one study are an array, `at_once` of them at a time.

    `setup` are lines of shell before Python, which is `python` (that of the submitting process
    where empty). Machines without `internet` leave W&B's records in the store. `options` are
    further ones of sbatch. `scheduler` local runs the jobs as processes of this machine, to try a
    file out.
    """

    kind: Literal["slurm"] = "slurm"
    account: str = ""
    partition: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = "4h"
    cpus: int = 0
    gpu: bool = False
    memory_gb: float = 0
    nodes: int = 1
    at_once: int = 32
    timeouts: int = 20
    warn_s: int = 120
    setup: list[str] = field(default_factory=list)
    python: str = ""
    internet: bool = True
    options: dict[str, str | int] = field(default_factory=dict)
    scheduler: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        for name in ("nodes", "at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("cpus", "memory_gb", "timeouts", "warn_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.seconds <= self.warn_s:
            raise ValueError(
                f"time {self.time} must be longer than warn_s, {self.warn_s} seconds; a number "
                "without a unit is not one, write 90m or 4h"
            )
        if self.scheduler == "local" and self.nodes > 1:
            raise ValueError("nodes must be 1 with scheduler local")

    @property
    def seconds(self) -> float:
        """The time limit. Raises UserError for what is none."""
        from experiments.durations import parse_duration

        return parse_duration(self.time, "time")


ClusterConfig = RayConfig | SlurmConfig
KINDS: dict[str, type[RayConfig | SlurmConfig]] = {"ray": RayConfig, "slurm": SlurmConfig}


def imported(module: str, executor: str) -> Any:
    """A library that only one executor needs. Raises UserError with the way out where it is not
    installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UserError(
            f"--executor {executor}: {LIBRARIES[module]} is not installed; pip install "
            f"'.[{executor}]', or use --executor local"
        ) from None


def read_cluster(path: Path) -> ClusterConfig:
    """The cluster that a file describes. Raises UserError with file, key, value and the way out."""
    given = read_yaml(path)
    kind = given.get("kind")
    if kind not in KINDS:
        raise UserError(f"{path}: kind: {kind!r}; {did_you_mean(str(kind), KINDS)}")
    known = [f.name for f in fields(KINDS[kind])]
    for key in given:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}; {did_you_mean(key, known)}")
    try:
        return TypeAdapter(KINDS[kind]).validate_python(given)
    except ValidationError as error:
        raise UserError(f"{path}: {_problem(error, given)}") from None


def _problem(error: ValidationError, given: dict[str, Any]) -> str:
    key, told = first_problem(error)
    if key:
        return f"{key}: {told}, found {error.errors()[0]['input']!r}"
    named = next((name for name in given if told.startswith(f"{name} ")), None)
    return told if named is None else f"{named}: {told}, found {given[named]!r}"


def cpus_of(config: ClusterConfig, cells: Sequence[Cell], devices: int) -> int:
    """Cores for a run of `devices` processes on each machine; the most of any cell's."""
    threads = max(cell.recipe.train.threads for cell in cells)
    return config.cpus or threads * devices
