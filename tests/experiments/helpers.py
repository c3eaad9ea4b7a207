"""Small grids run inside a test, and the stored runs that tests start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.compose import Changes
from experiments.executors import local, run_cells
from experiments.grid import make_plan, paper_values
from experiments.runtime import Runtime
from experiments.store import Result, Store
from experiments.study import Cell, Selection, Study, cells
from experiments.study_file import load_profile


def smoke_cells(
    study: Study, *, seeds: int = 1, changes: dict[str, Any] | None = None
) -> list[Cell]:
    """The grid of a study at the smoke profile."""
    given = Changes(changes or {}, "test")
    profile = load_profile("smoke")
    return cells(study, Selection(profile=profile, seeds=seeds, changes=(given,)))


def run_grid(study: Study, grid: list[Cell], store: Store) -> list[tuple[str, str]]:
    """Run what is missing with two workers; the start and end events in order."""
    missing = make_plan(grid, store).missing
    printed = paper_values(study, missing)
    runtimes = {c.run_id: Runtime(wandb="disabled", paper=printed[c.run_id]) for c in missing}
    events: list[tuple[str, str]] = []

    def watch(cell: Cell, event: dict[str, Any]) -> None:
        if event["kind"] in ("start", "done", "failed"):
            events.append((cell.variant, event["kind"]))

    run_cells(local, missing, store, runtimes, 2, watch)
    return events


def of_ladder(store: Store) -> Iterator[Result]:
    """The results of a store that were made for the ladder, by name."""
    for result in store.results():
        if any(entry.startswith("ladder/") for entry in result.cells):
            yield result
