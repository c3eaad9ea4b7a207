"""Where a command carries its runs out, as its options say; imported and connected when used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.options import ExecutorName

if TYPE_CHECKING:
    from experiments.budget import Grid
    from experiments.executors import Executor
    from experiments.runtime import Runtime
    from experiments.study import Cell


@dataclass(frozen=True)
class Place:
    """Where runs are carried out, how many at once, and on how many devices each."""

    name: ExecutorName | None
    cluster: Path | None
    jobs: int | None
    devices: int = 1

    @cached_property
    def executor(self) -> Executor:
        """What the options name."""
        from experiments.executors import open_executor

        return open_executor(self.name, self.cluster)

    def workers(self, cells: Sequence[Cell]) -> int:
        """Runs at once."""
        return self.jobs or self.executor.default_workers(cells, self.devices)

    def runtimes(
        self, grids: Sequence[Grid], cells: Sequence[Cell], carried_out: dict[str, Any]
    ) -> dict[str, Runtime]:
        """How each run is carried out there."""
        from experiments.grid import runtimes
        from experiments.runtime import Processes

        return runtimes(grids, cells, processes=Processes(devices=self.devices), **carried_out)
