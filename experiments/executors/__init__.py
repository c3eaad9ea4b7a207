"""Where runs are carried out: `local`, processes of this machine; `ray` and `slurm`, clusters.

Each is an `Executor`. It is handed cells and calls `training.train` for each, wherever it likes;
what is finished is known from the store alone, so that an executor keeps no state of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from experiments.errors import UserError
from experiments.store import Store
from experiments.study import Cell

if TYPE_CHECKING:
    from experiments.runtime import Runtime

Watch = Callable[[Cell, dict[str, Any]], None]


class Executor(Protocol):
    """A place for runs; the module `local` is one."""

    def default_workers(self, cells: Sequence[Cell], devices: int = 1) -> int:
        """How many of these runs it carries out at once, with `devices` processes each."""

    def run_as_asked(
        self,
        upcoming: Callable[[], Cell | None],
        store: Store,
        runtime_of: Callable[[Cell], Runtime],
        workers: int,
        watch: Watch,
    ) -> None:
        """Train what `upcoming` gives, `workers` runs at once, until it gives nothing and all have
        ended; None says that nothing can be started before something ends.

        `watch` sees of each cell `start`, the events of its run, and one of `done`; `failed`;
        `skipped`, where another process has it; `stopped` from outside, its checkpoint kept. A
        failed cell does not stop the others.
        """


def run_cells(
    executor: Executor,
    cells: Sequence[Cell],
    store: Store,
    runtimes: Mapping[str, Runtime],
    workers: int,
    watch: Watch,
    max_seconds: float | None = None,
) -> list[Cell]:
    """Train every cell, with `runtimes` by run id. After `max_seconds` no cell is started any more;
    those left out are returned.
    """
    last_start = time.monotonic() + (math.inf if max_seconds is None else max_seconds)
    waiting = list(cells)

    def upcoming() -> Cell | None:
        return waiting.pop(0) if waiting and time.monotonic() < last_start else None

    executor.run_as_asked(upcoming, store, lambda cell: runtimes[cell.run_id], workers, watch)
    return waiting


def dropping_checkpoints(watch: Watch, store: Store) -> Watch:
    """`watch`, and of each finished run the checkpoints go: for those who make hundreds of runs."""

    def see(cell: Cell, event: dict[str, Any]) -> None:
        watch(cell, event)
        if event["kind"] == "done":
            store.drop_checkpoints(cell.run_id)

    return see


def open_executor(name: str | None, cluster: Path | None = None) -> Executor:
    """The executor of a name, or of the file that describes a cluster. Raises UserError where the
    two disagree.
    """
    from experiments.executors import local
    from experiments.executors.clusters import KINDS, SlurmConfig, read_cluster

    if cluster is None and name in (None, "local"):
        return local
    config = KINDS[str(name)]() if cluster is None else read_cluster(cluster)
    if name not in (None, config.kind):
        raise UserError(f"{cluster}: kind: {config.kind!r}, and --executor {name}; give one")
    if isinstance(config, SlurmConfig):
        from experiments.executors.slurm import SlurmExecutor

        return SlurmExecutor(config)
    from experiments.executors.ray import RayExecutor

    return RayExecutor(config)
