"""The grid of a study: what is there, what is missing, what that will cost, and running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.counting import counts
from experiments.store import Result, State, Store
from experiments.study import Cell, PaperValue, Study


@dataclass(frozen=True)
class Plan:
    """Cells of a grid with the state of their runs."""

    cells: tuple[Cell, ...]
    states: dict[str, State]

    @property
    def missing(self) -> list[Cell]:
        """What has to run, each run once, failed ones again."""
        unique = {c.run_id: c for c in self.cells if self.states[c.run_id] in ("missing", "failed")}
        return list(unique.values())

    def count(self, state: State) -> int:
        """Runs in this state."""
        return sum(s == state for s in self.states.values())


def make_plan(cells: Sequence[Cell], store: Store) -> Plan:
    """Look every cell up in the store."""
    records = store.records(c.run_id for c in cells)
    return Plan(tuple(cells), {run_id: record.state for run_id, record in records.items()})


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
    """Run id → study → metric → the printed value."""
    return {c.run_id: {study.id: dict(study.variants[c.variant].paper)} for c in cells}


def longest_first(cells: Sequence[Cell]) -> list[Cell]:
    """Cells seed by seed, within a seed by falling work: no long run is left to end alone."""
    macs_b = macs_by_variant(cells)
    return sorted(cells, key=lambda cell: (cell.seed, -macs_b[cell.variant]))


def macs_by_variant(cells: Sequence[Cell], num_classes: int | None = None) -> dict[str, float]:
    """Multiply-adds in 1e9 of each variant's network, counted once for all its seeds."""
    recipes = {cell.variant: cell.recipe for cell in cells}
    return {variant: counts(recipe, num_classes).macs_b for variant, recipe in recipes.items()}


def price(macs_b: float, images: int, known: Sequence[Result]) -> float:
    """Seconds that a run over `images` pictures will take, from one or more measured runs.

    The run nearest in multiply-adds gives the speed, scaled by them, and the time beside training.
    """
    nearest = min(known, key=lambda r: abs(r.macs_b - macs_b))
    seconds = images / nearest.images_per_second * macs_b / nearest.macs_b
    return seconds + nearest.seconds - nearest.train_seconds
