"""Runs as jobs of a SLURM cluster, submitted by submitit.

Jobs that are submitted together form an array. A job that nears its time limit or is preempted has
its run write a checkpoint, queues up again and goes on from there. Which job has a run is written
beside the runs, so that the command can be left and given again: it then watches the same jobs.
All machines need this project and the folder of runs, at the same path.
"""

from __future__ import annotations

import math
import multiprocessing
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.executors import Watch, local
from experiments.executors.clusters import SlurmConfig, cpus_of, imported
from experiments.executors.following import STOPPED, Task, carry_out, follow_queue, placed
from experiments.executors.jobs import JOBS, note_job, queued, queued_jobs
from experiments.runtime import Runtime
from experiments.store import Store
from experiments.study import Cell
from experiments.subprocesses import environment

QUEUE_EVERY_S = 10.0  # between looks at the queue, which other users ask too
STOP_S = 30.0  # for a run to write its checkpoint
ENDING_S = 600.0  # the longest grace of a job that must end
FIRST_PORT, PORTS = 20_000, 20_000


class SlurmExecutor:
    """Carries runs out as jobs; `config` says what each asks for."""

    def __init__(self, config: SlurmConfig) -> None:
        self.submitit, self.config = imported("submitit", "slurm"), config
        self._queue: set[str] = set()
        self._looked = -math.inf

    def default_workers(self, cells: Sequence[Cell], devices: int = 1) -> int:
        """All of them: the queue is where they wait."""
        if self.config.scheduler == "local":
            return local.default_workers(cells, devices)
        return max(1, len(cells))

    def run_as_asked(
        self,
        upcoming: Callable[[], Cell | None],
        store: Store,
        runtime_of: Callable[[Cell], Runtime],
        workers: int,
        watch: Watch,
    ) -> None:
        """As `Executor` says; an interrupt ends the watching, and the jobs go on."""
        follow_queue(self, upcoming, store, runtime_of, workers, watch)

    def submit(self, tasks: Sequence[Task], store: Store) -> list[Any]:
        """Jobs for the runs; a run that has one in the queue already keeps it."""
        folder, known = store.root.resolve() / JOBS, self._known(store)
        new = [task for task in tasks if task[0].run_id not in known]
        if new:
            made = zip(new, self._submit(new, folder), strict=True)
            jobs = {cell.run_id: job for (cell, _), job in made}
            for run_id, job in jobs.items():
                note_job(store, run_id, job.job_id)
            known |= jobs
        return [known[cell.run_id] for cell, _ in tasks]

    def ended(self, handle: Any) -> str | None:
        """How a job has ended, and where what it said is; one that was preempted and queues up
        again has not.
        """
        if not handle.done() or self._is_queued(handle.job_id):
            return None
        return f"job {handle.job_id} is {handle.state.lower()}; {handle.paths.stderr} has its words"

    def leave(self, handles: Sequence[Any]) -> None:
        """Jobs of a cluster stay in its queue; processes of this machine end."""
        if self.config.scheduler == "local":
            for handle in handles:
                handle.cancel()

    def script(self, tasks: Sequence[Task], store: Store) -> str:
        """What sbatch would be given for these runs, also where there is no SLURM."""
        folder = store.root.resolve() / JOBS
        executor = self._scheduler(folder, is_shown=True)
        executor.update_parameters(**self._parameters(tasks))
        if len(tasks) > 1:
            executor.parameters["map_count"] = len(tasks)
        return str(executor._make_submission_file_text(executor._submitit_command_str, "ID"))

    def _submit(self, tasks: Sequence[Task], folder: Path) -> list[Any]:
        executor = self._scheduler(folder)
        root, here = folder.parent, Path.cwd()
        if self.config.scheduler == "local":
            gpus = tasks[0][1].processes.devices if self.config.gpu else 0
            executor.update_parameters(
                timeout_min=self.config.seconds / 60,
                signal_delay_s=self.config.warn_s,
                gpus_per_node=gpus,
                setup=self.config.setup,
            )
        else:
            executor.update_parameters(**self._parameters(tasks))
        with executor.batch():
            return [executor.submit(_Run(cell, root, self._runtime(r), here)) for cell, r in tasks]

    def _scheduler(self, folder: Path, *, is_shown: bool = False) -> Any:
        config, kind = self.config, self.submitit.SlurmExecutor
        if config.scheduler == "local" and not is_shown:
            return self.submitit.LocalExecutor(folder, max_num_timeout=config.timeouts)
        if is_shown:

            class Shown(kind):  # type: ignore[misc,valid-type]
                """Writes scripts where srun, for which submitit looks, is not there."""

                @classmethod
                def affinity(cls) -> int:
                    return 1

            kind = Shown
        elif shutil.which("sbatch") is None:
            raise UserError(
                "--executor slurm: this machine has no sbatch; submit from a login node of the "
                "cluster, or look at what would be submitted with --print-script"
            )
        python = config.python or None
        return kind(folder, max_num_timeout=config.timeouts, python=python)

    def _parameters(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """Of the sbatch script, by submitit's names."""
        config, devices = self.config, tasks[0][1].processes.devices
        named = {k: getattr(config, k) for k in ("account", "partition", "qos", "constraint")}
        memory = f"{config.memory_gb:g}GB" if config.memory_gb else None
        path = f"export PYTHONPATH={shlex.quote(environment()['PYTHONPATH'])}"
        return {key: value for key, value in named.items() if value} | {
            "job_name": "spinenet",
            "wckey": "",  # submitit would give its own, which a cluster may not know
            "time": math.ceil(config.seconds / 60),
            "nodes": config.nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": cpus_of(config, [cell for cell, _ in tasks], devices),
            "gpus_per_node": devices if config.gpu else None,
            "mem": memory,
            "signal_delay_s": config.warn_s,
            "array_parallelism": config.at_once,
            "setup": [*config.setup, path],
            "additional_parameters": {"requeue": True, **config.options},
        }

    def _runtime(self, runtime: Runtime) -> Runtime:
        runtime = placed(runtime, on_gpu=self.config.gpu)
        if not self.config.internet and runtime.wandb in ("auto", "online"):
            runtime = replace(runtime, wandb="offline")
        if self.config.nodes > 1:
            spread = replace(runtime.processes, nodes=self.config.nodes, port=FIRST_PORT)
            runtime = replace(runtime, processes=spread)
        return runtime

    def _is_queued(self, job: str) -> bool:
        if self.config.scheduler == "local":
            return False
        if time.monotonic() - self._looked > QUEUE_EVERY_S:
            self._looked = time.monotonic()
            with suppress(UserError):  # SLURM does not answer: the queue is taken to be as it was
                self._queue = queued()
        return job in self._queue

    def _known(self, store: Store) -> dict[str, Any]:
        """The jobs that wait or run, by run id."""
        if self.config.scheduler == "local":
            return {}
        folder = store.root.resolve() / JOBS
        return {run: self.submitit.SlurmJob(folder, job) for run, job in queued_jobs(store).items()}


@dataclass(frozen=True)
class _Run:
    """What a job does, and what it does when it is told that it must end."""

    cell: Cell
    root: Path
    runtime: Runtime
    workplace: Path

    def __call__(self) -> None:
        # Of a preempted job SLURM tells this process, and not the run's, which is a child of its.
        signal.signal(signal.SIGTERM, lambda *_: _pass_on())
        end = carry_out(self.cell, self.root, _located(self.runtime), self.workplace)
        if end == STOPPED:
            # This must not end as if all were done: it is about to be ended, or told to queue up
            # again.
            time.sleep(ENDING_S)
            raise RuntimeError("the run was stopped from outside, but not the job")

    def checkpoint(self) -> Any:
        """Have the run write its checkpoint and end; the job then queues up again, as it was."""
        from submitit.helpers import DelayedSubmission

        for child in _pass_on():
            child.join(STOP_S)
        return DelayedSubmission(self)


def _pass_on() -> list[BaseProcess]:
    """Tell the runs of this process to stop."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    return children


def _located(runtime: Runtime) -> Runtime:
    """Which of the job's machines this is, and where they meet."""
    if runtime.processes.nodes == 1:
        return runtime
    from submitit import JobEnvironment

    here = JobEnvironment()
    port = FIRST_PORT + int(here.raw_job_id) % PORTS  # the same on all, and another job's differs
    found = replace(runtime.processes, node=here.node, address=here.hostnames[0], port=port)
    return replace(runtime, processes=found)
