"""Runs as tasks of a Ray cluster: one that exists, or one that is started here.

A task holds the cores and GPUs of one run and carries it out in a process of its own. Ray starts a
task again on another machine when its own is lost; the run then goes on from its last checkpoint.
All machines need this project and the folder of runs, at the same path.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.executors import Watch
from experiments.executors.clusters import RayConfig, cpus_of, imported
from experiments.executors.following import Task, carry_out, follow_queue, placed
from experiments.provenance import usable_cores
from experiments.runtime import Runtime
from experiments.store import Store
from experiments.study import Cell
from experiments.subprocesses import environment

FORWARDED = ("SPINENET_CACHE", "WANDB_MODE", "PYTHONPATH", "OMP_WAIT_POLICY")


class RayExecutor:
    """Carries runs out on a Ray cluster; connects when it is first asked something."""

    def __init__(self, config: RayConfig) -> None:
        self.ray, self.config = imported("ray", "ray"), config

    def default_workers(self, cells: Sequence[Cell], devices: int = 1) -> int:
        """As many as the cluster's cores and GPUs hold. Raises UserError where no machine of it
        holds one run.
        """
        if not cells:
            return 1
        self._connect()
        need = self._resources(cells, devices)
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fitting = [_times(machine, need) for machine in machines]
        if not any(fitting):
            most = {key: max(m.get(key, 0) for m in machines) for key in need}
            raise UserError(
                f"a run takes {_told(need)}, and no machine of the cluster has more than "
                f"{_told(most)}; ask for less: cpus, gpus or memory_gb of --cluster, or --devices"
            )
        return min(len(cells), sum(fitting))

    def run_as_asked(
        self,
        upcoming: Callable[[], Cell | None],
        store: Store,
        runtime_of: Callable[[Cell], Runtime],
        workers: int,
        watch: Watch,
    ) -> None:
        """As `Executor` says; what still runs at an interrupt is stopped."""
        self._connect()
        try:
            follow_queue(self, upcoming, store, runtime_of, workers, watch)
        finally:
            self.ray.shutdown()

    def submit(self, tasks: Sequence[Task], store: Store) -> list[Any]:
        """A task of the cluster for each run."""
        root, here, handles = store.root.resolve(), Path.cwd(), []
        for cell, runtime in tasks:
            need = self._resources([cell], runtime.processes.devices)
            options: dict[str, Any] = {
                "num_cpus": need["CPU"],
                "num_gpus": need.get("GPU", 0),
                "memory": need.get("memory", 0) or None,
                "max_retries": self.config.retries,
                "name": cell.label,
            }
            remote = self.ray.remote(**options)(carry_out)
            handles.append(remote.remote(cell, root, placed(runtime, on_gpu="GPU" in need), here))
        return handles

    def ended(self, handle: Any) -> str | None:
        """How a task has ended: by the last event of its run, or for want of a machine."""
        done, _ = self.ray.wait([handle], timeout=0)
        if not done:
            return None
        try:
            end = self.ray.get(handle)
        except self.ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            return f"{type(error).__name__}: {said[-1] if said else 'no word'}"
        return str(end)

    def leave(self, handles: Sequence[Any]) -> None:
        """Stop the tasks; their runs end with them."""
        for handle in handles:
            self.ray.cancel(handle, force=True)

    def _resources(self, cells: Sequence[Cell], devices: int) -> dict[str, float]:
        """What a run holds, as Ray names it."""
        need: dict[str, float] = {"CPU": cpus_of(self.config, cells, devices)}
        gpus = self.config.gpus
        if gpus is None:
            gpus = 1 if self.ray.cluster_resources().get("GPU") else 0
        if gpus:
            need["GPU"] = gpus * devices
        if self.config.memory_gb:
            need["memory"] = self.config.memory_gb * 2**30
        return need

    def _connect(self) -> None:
        if self.ray.is_initialized():
            return
        names = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        names["PYTHONPATH"] = environment()["PYTHONPATH"]
        variables = names | self.config.environment
        options: dict[str, Any] = {"runtime_env": {"env_vars": variables}, "log_to_driver": False}
        if self.config.address:
            options["address"] = self.config.address
        else:
            options |= {"address": "local", "num_cpus": usable_cores(), "include_dashboard": False}
        try:
            self.ray.init(logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"--executor ray: address {self.config.address!r}: {error}; start the cluster with "
                "ray start --head, or leave address out to start one here"
            ) from None


def _times(machine: dict[str, float], need: dict[str, float]) -> int:
    """How often a need goes into what a machine has."""
    return int(min(machine.get(key, 0) // amount for key, amount in need.items()))


def _told(resources: dict[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:g} GB of memory" if key == "memory" else f"{amount:g} {key}s"
        for key, amount in resources.items()
    )
