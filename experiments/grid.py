"""The grid of a study: what is there, what is missing, what was found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.leases import Pace, Watch
from experiments.store import Result, State, Store
from experiments.study import Cell, PaperValue, Study

if TYPE_CHECKING:
    from experiments.runtime import Runtime

WAIT_S = 1.0  # between looks at what other workers do


@dataclass(frozen=True)
class Plan:
    """Cells of a grid with the state of their runs."""

    cells: tuple[Cell, ...]
    states: dict[str, State]

    @property
    def missing(self) -> list[Cell]:
        """What has to run, each run once, failed ones again."""
        return self.in_state("missing", "failed")

    def in_state(self, *states: State) -> list[Cell]:
        """The first cell of each run in one of these states."""
        unique: dict[str, Cell] = {}
        for cell in self.cells:
            if self.states[cell.run_id] in states:
                unique.setdefault(cell.run_id, cell)
        return list(unique.values())

    def count(self, state: State) -> int:
        """Runs in this state."""
        return sum(s == state for s in self.states.values())


def make_plan(cells: Sequence[Cell], store: Store) -> Plan:
    """Look every cell up in the store."""
    records = store.records(c.run_id for c in cells)
    return Plan(tuple(cells), {run_id: record.state for run_id, record in records.items()})


def await_others(cells: Sequence[Cell], store: Store, pace: Pace | None = None) -> list[Cell]:
    """Wait for runs that other workers have, until some are free to be taken: given back without a
    result, or of a worker that is dead. These; none if all came to an end.
    """
    watch, left = Watch(pace), list(cells)
    while left:
        states = make_plan(left, store).states
        left = [cell for cell in left if states[cell.run_id] in ("missing", "running")]
        folders = {cell.run_id: store.folder(cell.run_id, cell.recipe.name) for cell in left}
        if free := [cell for cell in left if watch.look(folders[cell.run_id]) == "free"]:
            return free
        if left:
            time.sleep(WAIT_S)
    return []


def collect(cells: Sequence[Cell], store: Store) -> dict[str, dict[int, Result]]:
    """Results by variant and seed."""
    found: dict[str, dict[int, Result]] = {}
    records = store.records(c.run_id for c in cells)
    for cell in cells:
        result = records[cell.run_id].result
        if result is not None:
            found.setdefault(cell.variant, {})[cell.seed] = result
    return found


def paper_values(
    study: Study, cells: Sequence[Cell]
) -> dict[str, dict[str, dict[str, PaperValue]]]:
    """Run id → study → metric → the printed value; none of a study in which several rows with
    other numbers share the run, which is that of neither alone.
    """
    printed: dict[str, list[dict[str, PaperValue]]] = {}
    for cell in cells:
        printed.setdefault(cell.run_id, []).append(dict(study.variants[cell.variant].paper))
    return {
        run: {study.id: rows[0]} if all(row == rows[0] for row in rows) else {}
        for run, rows in printed.items()
    }


def runtimes(
    grids: Sequence[tuple[Study, Sequence[Cell]]], cells: Sequence[Cell], **carried_out: Any
) -> dict[str, Runtime]:
    """How each cell's run is carried out, by run id, with all that the grids say of it."""
    from experiments.runtime import Runtime

    printed: dict[str, dict[str, dict[str, PaperValue]]] = {}
    entries: dict[str, list[str]] = {}
    for study, grid in grids:
        for cell in grid:
            entries.setdefault(cell.run_id, []).append(cell.entry)
        for run, values in paper_values(study, grid).items():
            printed.setdefault(run, {}).update(values)
    return {
        cell.run_id: Runtime(
            group=cell.profile,
            paper=printed[cell.run_id],
            cells=tuple(dict.fromkeys(entries[cell.run_id])),
            **carried_out,
        )
        for cell in cells
    }
