"""What the executors of clusters share: runs handed over to a queue, and followed by what they
write into the store.

A run's progress is read from its folder, and its end from its result, so nothing but the store
connects a cluster's machines with the one that watches.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from experiments.executors import Watch, local, run_cells
from experiments.executors.attempts import Attempt
from experiments.progress import Progress, read_progress
from experiments.runtime import Runtime
from experiments.store import Failure, Store
from experiments.study import Cell

Event = dict[str, Any]
LOOK_EVERY_S = 0.5
STOPPED = "stopped"
PATIENCE_S = 180.0  # longer than a lost machine counts as alive

Task = tuple[Cell, Runtime]


class Queue(Protocol):
    """Where runs wait for a machine; a handle is whatever names a job there."""

    def submit(self, tasks: Sequence[Task], store: Store) -> Sequence[Any]:
        """Put runs into the queue; a handle for each."""

    def ended(self, handle: Any) -> str | None:
        """How a job has ended: `STOPPED`, if its run was stopped from outside and has a checkpoint
        to go on from, or in a few words; None while it waits or runs.
        """

    def leave(self, handles: Sequence[Any]) -> None:
        """Nobody watches these any more, although they have not ended."""


def follow_queue(
    queue: Queue,
    upcoming: Callable[[], Cell | None],
    store: Store,
    runtime_of: Callable[[Cell], Runtime],
    workers: int,
    watch: Watch,
) -> None:
    """What `Executor.run_as_asked` promises, with jobs of a queue."""
    running: list[tuple[_Followed, Any]] = []
    try:
        while True:
            taken = [_Followed(cell, store) for cell in _take(upcoming, workers - len(running))]
            tasks = [(job.cell, runtime_of(job.cell)) for job in taken]
            handles = queue.submit(tasks, store) if tasks else ()
            running += zip(taken, handles, strict=True)
            if not running:
                return
            time.sleep(LOOK_EVERY_S)
            for job, handle in list(running):
                how = queue.ended(handle)  # first, so that its last progress is seen
                for event in job.news() if how is None else job.end(how):
                    watch(job.cell, event)
                if how is not None:
                    running.remove((job, handle))
    finally:
        queue.leave([handle for _, handle in running])


def carry_out(cell: Cell, root: Path, runtime: Runtime, workplace: Path) -> str:
    """One run on the machine that a queue has chosen for it, as a process of its own, with relative
    paths from `workplace`; the further machines of a run follow the first. The last event of the
    run: `done`, `failed`, `stopped` from outside, or `skipped` because another process has it.

    A run that seems to be under way is waited for a while: the machine that had it may be lost.
    """
    os.chdir(workplace)
    store, patience = Store(root), time.monotonic() + PATIENCE_S
    if runtime.processes.node:
        from experiments.training import follow

        follow(cell.recipe, store.folder(cell.run_id, cell.recipe.name), runtime)
        return "done"
    while (end := _attempt(cell, store, runtime)) == "skipped" and time.monotonic() < patience:
        time.sleep(LOOK_EVERY_S)
    return end


def _attempt(cell: Cell, store: Store, runtime: Runtime) -> str:
    """The last event of the run in a process of this machine."""
    kinds: list[str] = []
    run_cells(local, [cell], store, {cell.run_id: runtime}, 1, lambda _, e: kinds.append(e["kind"]))
    return kinds[-1]


def _take(upcoming: Callable[[], Cell | None], most: int) -> Iterator[Cell]:
    for _ in range(most):
        if (cell := upcoming()) is None:
            return
        yield cell


class _Followed:
    """A run whose job is about to be submitted, and what has been told of it so far."""

    def __init__(self, cell: Cell, store: Store) -> None:
        self.cell, self.store, self.attempt = cell, store, Attempt(cell, store)
        self.seen = read_progress(self.attempt.folder)  # an earlier attempt's
        self.started = False

    def news(self) -> Iterator[Event]:
        """What the run has written since the last look."""
        now, before = read_progress(self.attempt.folder), self.seen
        if now is None or now == before:
            return
        yield from self._start()
        if now.total and (before is None or now.step != before.step):
            yield {"kind": "step", "step": now.step, "total": now.total}
        if now.value is not None and _validation(now) != (before and _validation(before)):
            yield {"kind": "validation", "metric": now.metric, "value": now.value}
        self.seen = now

    def end(self, how: str) -> Iterator[Event]:
        """The last events, once the job has ended."""
        yield from self._start()
        record = self.store.records([self.cell.run_id])[self.cell.run_id]
        if record.result is not None:
            metric, value = next(iter(record.result.metrics.items()))
            yield {"kind": "validation", "metric": metric, "value": value}
            yield {"kind": "done"}
        elif record.state == "running":  # another process has taken this run
            yield {"kind": "skipped"}
        elif how == STOPPED:
            yield {"kind": "stopped"}
        else:
            died = Failure("JobEnded", f"the job ended without a result: {how}")
            yield {"kind": "failed", "failure": self.attempt.failure(died)}

    def _start(self) -> Iterator[Event]:
        if not self.started:
            self.started = True
            yield {"kind": "start"}


def _validation(progress: Progress) -> tuple[str, float | None]:
    return progress.metric, progress.value


def placed(runtime: Runtime, *, on_gpu: bool) -> Runtime:
    """The runtime as on a machine of the cluster, which may have a GPU where this one has none."""
    return replace(runtime, accelerator="gpu" if on_gpu else "cpu", progress_bar=False)
