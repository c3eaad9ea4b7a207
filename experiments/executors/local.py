"""Cells as processes of this machine, forked from a parent that has already imported torch.

Each run gets its own process, so that a crash takes nothing else with it. The fork server imports
once; a cell then starts in a fraction of a second. Progress comes back over a pipe; a run whose
pipe has no other end any more stops by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from experiments import stopping
from experiments.executors import Watch
from experiments.executors.attempts import Attempt
from experiments.leases import HeldError, LeaseLostError
from experiments.provenance import usable_cores
from experiments.runtime import Runtime
from experiments.stopping import Stopped
from experiments.store import Failure, Store
from experiments.study import Cell

# What runs need and import late; the last is what wandb.init imports, for most of a second.
PRELOADED = ["experiments.training", "timm", "torchvision", "wandb", "wandb.sdk.launch"]

STOP_S = 20.0  # for a step, and a checkpoint
TAKEN_EXIT = 76  # of a run's process that left the run to another worker
# A run is told to stop by SIGTERM also before it listens.
ENDED = {stopping.EXIT: "stopped", -signal.SIGTERM: "stopped", TAKEN_EXIT: "skipped"}
OUTPUT = "output.log"

# Bytes; an embedded run with its libraries and decoded pictures stays under this.
MEMORY_PER_RUN = 2 * 2**30


@dataclass
class _Job:
    cell: Cell
    process: ForkServerProcess
    pipe: Connection
    slot: int
    attempt: Attempt


def default_workers(cells: Sequence[Cell], devices: int = 1) -> int:
    """As many runs at once as there are cores for their threads, and memory, or GPUs where there
    are any, with `devices` processes each.
    """
    import torch

    if not cells:
        return 1
    if torch.cuda.is_available():
        return min(len(cells), gpu_groups(devices))
    threads = devices * max(cell.recipe.train.threads for cell in cells)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(cells), usable_cores() // threads, memory // (devices * MEMORY_PER_RUN)))


def gpu_groups(devices: int) -> int:
    """Into how many groups of `devices` this machine's GPUs fall; 1 where there are too few."""
    import torch

    return max(1, torch.cuda.device_count() // devices)


def run_as_asked(
    upcoming: Callable[[], Cell | None],
    store: Store,
    runtime_of: Callable[[Cell], Runtime],
    workers: int,
    watch: Watch,
) -> None:
    """As `Executor` says; runs that are more than the GPUs share these. When this is interrupted,
    the running cells are asked to stop and have a moment for it; finished ones are safe on disk.
    """
    context = multiprocessing.get_context("forkserver")
    # timm and torchvision are imported late elsewhere; here each run would pay for them.
    context.set_forkserver_preload(PRELOADED)
    running: list[_Job] = []
    free = list(range(workers))
    try:
        while True:
            while free and (cell := upcoming()) is not None:
                slot = free.pop()
                runtime = runtime_of(cell)
                runtime = replace(runtime, device=slot % gpu_groups(runtime.processes.devices))
                running.append(_start(context, cell, store, runtime, slot))
                watch(cell, {"kind": "start"})
            if not running:
                return
            ready = wait([job.pipe for job in running])
            for job in [j for j in running if j.pipe in ready]:
                if not _receive(job, store, watch):
                    running.remove(job)
                    free.append(job.slot)
    finally:
        _stop(running)


def _start(context: Any, cell: Cell, store: Store, runtime: Runtime, slot: int) -> _Job:
    attempt = Attempt(cell, store)
    receiver, sender = context.Pipe(duplex=False)
    # No daemon, which could not have processes that load data; it ends with its parent by itself.
    process = context.Process(target=_child, args=(cell, store, runtime, sender))
    process.start()
    sender.close()
    return _Job(cell, process, receiver, slot, attempt)


def _stop(running: Sequence[_Job]) -> None:
    """Ask the runs to stop, and end those that have not in `STOP_S`, or at a second interrupt."""
    deadline = time.monotonic() + STOP_S
    try:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for job in running:
            job.process.kill()
        for job in running:
            job.process.join()


def _receive(job: _Job, store: Store, watch: Watch) -> bool:
    """Pass one event on; False when the run is over."""
    try:
        event = job.pipe.recv()
    except EOFError:
        job.process.join()
        state = store.state(job.cell.run_id)
        if state in ("complete", "running"):  # running: another process has taken this run
            watch(job.cell, {"kind": "done" if state == "complete" else "skipped"})
            return False
        if (ended := ENDED.get(job.process.exitcode or 0)) is not None:
            watch(job.cell, {"kind": ended})
            return False
        died = _death(job.process.exitcode, job.attempt.folder / OUTPUT)
        failure = job.attempt.failure(Failure("ProcessDied", died))
        watch(job.cell, {"kind": "failed", "failure": failure})
        return False
    watch(job.cell, event)
    return True


def _death(code: int | None, output: Path) -> str:
    """How a process ended that has recorded nothing, with its last words."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; the machine may be out of memory, try --jobs 1" if name == "SIGKILL" else ""
        return f"the run's process was ended by {name}{hint}"
    words = output.read_text(errors="replace").strip().splitlines() if output.is_file() else []
    said = f": {words[-1]}; {output} has all that it said" if words else ""
    return f"the run's process ended with exit code {code} and no result{said}"


def _child(cell: Cell, store: Store, runtime: Runtime, pipe: Connection) -> None:
    """One run, in its own process: interrupts at the terminal are the parent's business, output
    goes to the run's folder.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    folder = store.folder(cell.run_id, cell.recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / OUTPUT).open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)

    from experiments.training import train

    try:
        train(cell.recipe, cell.run_id, folder, runtime, pipe.send)
    except (HeldError, LeaseLostError):
        sys.exit(TAKEN_EXIT)
    except Stopped:
        sys.exit(stopping.EXIT)  # with a checkpoint
    except Exception:
        traceback.print_exc()  # most are in failure.json; not those from before the run was its own
        sys.exit(1)
    finally:
        pipe.close()


def _end_with_the_parent() -> None:
    """A run whose parent was killed would go on unseen, and hold what others wait for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
