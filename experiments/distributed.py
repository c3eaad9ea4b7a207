"""A run over several processes: the GPUs of one machine, or of several.

Each process takes its share of every batch and Lightning's DDP averages the gradients, so that a
step is that of the whole batch: the sampler deals a batch's pictures out, losses are divided by
what all shares have, and norms share their statistics where there are GPUs. The recipe, and with it
the run's id, knows nothing of it.

The first process of a machine starts the others there. They take the same steps, record nothing,
say what they have to say in `rank-N.log` of the run's folder, and end when the first does, in
whatever way: it holds a pipe to them.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from experiments.errors import UserError
from experiments.recipe import Recipe, TrainConfig
from experiments.runtime import Processes, Runtime
from experiments.stopping import Stopped
from experiments.store import Failure, write_failure
from experiments.subprocesses import environment

WATCH_EVERY_S = 1.0
GRACE_S = 30.0  # for the first process to notice by itself, or for the others to end


class ProcessLostError(RuntimeError):
    """A process that shared in the run has ended before it; the message has its last words."""


@dataclass(frozen=True)
class _Other:
    """A process that this one has started, and the file of what it says."""

    rank: int
    process: subprocess.Popen[bytes]
    said: Path

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def last_words(self, patience_s: float) -> str:
        """What there is to say of its failure; empty if it has not failed."""
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return ""
        words = self.said.read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
        said = f"process {self.rank} of the run ended with code {code}: {words[0]}"
        return f"{said}; {self.said} has all that it said" if code else ""


def share(train: TrainConfig, processes: Processes) -> int:
    """Pictures of a batch for each process. Raises UserError where they do not come out even."""
    each, left = divmod(train.batch_size, processes.count)
    if left or not each or each % train.accumulate:
        parts = f" in {train.accumulate} parts each" if train.accumulate > 1 else ""
        raise UserError(
            f"train.batch_size {train.batch_size} cannot be shared evenly by {processes.count} "
            f"processes ({processes.devices} devices on {processes.nodes} machines){parts}; give a "
            "number of devices that divides it, or another --set train.batch_size"
        )
    return each


def trainer_options(processes: Processes, accelerator: str, device: int) -> dict[str, Any]:
    """What Lightning's trainer is told. `device` counts GPUs in groups of a run's."""
    first = device * processes.devices
    gpus = list(range(first, first + processes.devices))
    options: dict[str, Any] = {"devices": gpus if accelerator == "gpu" else processes.devices}
    if processes.count > 1:
        options |= {"strategy": "ddp", "num_nodes": processes.nodes}
    return options


def share_norms(network: nn.Module, recipe: Recipe, runtime: Runtime) -> nn.Module:
    """Norms over the whole batch where the processes have GPUs; elsewhere torch has none such, and
    each process normalises by its own share.
    """
    if runtime.processes.count == 1:
        return network
    if runtime.accelerator == "gpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if recipe.model.layers.sync_bn:
        raise UserError(
            "model.layers.sync_bn true: processes without GPUs cannot share their norms' "
            "statistics; train in one process, or --set model.layers.sync_bn=false"
        )
    return network


def deviations(recipe: Recipe, runtime: Runtime) -> list[str]:
    """`norms` where each process has its own although they learn: not what one process does."""
    own = runtime.processes.count > 1 and runtime.accelerator != "gpu"
    return ["norms"] if own and recipe.train.frozen_norms < 1 else []


def facts(runtime: Runtime) -> dict[str, Any]:
    """For the record of where a result was made; nothing of a run in one process."""
    if runtime.processes.count == 1:
        return {}
    norms = "shared" if runtime.accelerator == "gpu" else "each process its own"
    return {
        "processes": runtime.processes.count,
        "machines": runtime.processes.nodes,
        "norms": norms,
    }


@contextmanager
def together(recipe: Recipe, folder: Path, runtime: Runtime) -> Iterator[Runtime]:
    """Start the other processes of this machine, if this is its first; `runtime` with the port at
    which all meet. Raises ProcessLostError where one of them ends too early.
    """
    processes = runtime.processes
    if processes.count == 1:
        yield runtime
        return
    share(recipe.train, processes)
    if not processes.port:
        processes = replace(processes, port=_free_port())
    runtime = replace(runtime, processes=processes)
    others = range(1, processes.devices) if processes.local == 0 else ()
    started = [_start(recipe, folder, runtime, local) for local in others]
    over = threading.Event()
    threading.Thread(target=_watch, args=(started, folder, over), daemon=True).start()
    try:
        with _named(processes):
            yield runtime
        for other in started:
            other.last_words(GRACE_S)  # it has taken the last step too, and is about to end
        if dist.is_initialized():
            dist.destroy_process_group()
    except Exception as error:
        if _is_lost_connection(error) and (lost := _lost(started, patience_s=3.0)):
            raise ProcessLostError(lost) from error
        raise
    finally:
        over.set()
        for other in started:
            other.end()
        if dist.is_initialized() and dist.get_backend() == "gloo":
            dist.destroy_process_group()  # after a failure too; NCCL would wait for the others


def _start(recipe: Recipe, folder: Path, runtime: Runtime, local: int) -> _Other:
    """Process `local` of this machine, which learns from its input what to do."""
    runtime = replace(runtime, processes=replace(runtime.processes, local=local))
    rank = runtime.processes.rank
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / f"rank-{rank}.log"
    with said.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.distributed"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(OMP_NUM_THREADS=str(recipe.train.threads)),
            start_new_session=True,  # an interrupt at the terminal is for the first process
        )
    assert process.stdin is not None
    pickle.dump((recipe, folder, runtime), process.stdin)
    process.stdin.flush()
    return _Other(rank, process, said)


def _watch(started: Sequence[_Other], folder: Path, over: threading.Event) -> None:
    """End this process where another has died and it waits for that one's share for ever."""
    while not over.wait(WATCH_EVERY_S):
        if (lost := _lost(started)) and not over.wait(GRACE_S):
            write_failure(folder, Failure(ProcessLostError.__name__, lost))
            os._exit(1)


def _lost(started: Sequence[_Other], patience_s: float = 0.0) -> str:
    """What is known of the first process that failed; empty if none has."""
    return next((lost for other in started if (lost := other.last_words(patience_s))), "")


def _is_lost_connection(error: Exception) -> bool:
    """Whether it is what a process says when another is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)


@contextmanager
def _named(processes: Processes) -> Iterator[None]:
    """This process's place in the variables by which Lightning and torch know it."""
    names = {
        "MASTER_ADDR": processes.address,
        "MASTER_PORT": str(processes.port),
        "NODE_RANK": str(processes.node),
        "LOCAL_RANK": str(processes.local),
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _main() -> None:
    from experiments.training import follow

    recipe, folder, runtime = pickle.load(sys.stdin.buffer)

    def end_with_the_first() -> None:
        while os.read(sys.stdin.fileno(), 1):  # past Python's buffer, which an exit would wait for
            pass
        os._exit(1)

    threading.Thread(target=end_with_the_first, daemon=True).start()
    torch.set_num_threads(recipe.train.threads)
    try:
        follow(recipe, folder, runtime)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


if __name__ == "__main__":
    _main()
