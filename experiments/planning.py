"""What `plan` and `status` print: the grid's cells with their states, prices and failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules import training_samples
from experiments.grid import macs_by_variant, make_plan, price
from experiments.provenance import processor
from experiments.store import Store
from experiments.study import Cell, Selection, Study, cells


def planned_rows(study: Study, selection: Selection, runs: Path) -> dict[str, Any]:
    """Each cell's state and price, and the sum over what is missing."""
    grid, store = cells(study, selection), Store(runs)
    planned = make_plan(grid, store)
    prices = _prices(planned.missing, store)
    total = None if prices is None else sum(prices.values())
    rows = []
    for cell in grid:
        seconds = prices.pop(cell.run_id, None) if prices else None  # a run is paid for once
        rows.append(
            {
                "cell": cell.label,
                "state": planned.states[cell.run_id],
                "price": "" if seconds is None else f"{seconds:.0f} s",
                "run": cell.run_id,
            }
        )
    count = len(planned.missing)
    summary = f"{count} runs to train, {planned.count('complete')} complete"
    if total is None:
        summary += "; no run on this machine yet to take a speed from, so no price"
    elif count:
        summary += f"; about {total / 60:.0f} minutes of one process at the speed measured here"
    return {"cells": rows, "seconds": total, "summary": summary}


def status_rows(study: Study, selection: Selection, runs: Path) -> list[dict[str, Any]]:
    """Each cell's state, AP and seconds, and its failure if it has one."""
    grid = cells(study, selection)
    records = Store(runs).records(c.run_id for c in grid)
    rows = []
    for cell in grid:
        record = records[cell.run_id]
        result, failure = record.result, record.failure
        rows.append(
            {
                "cell": cell.label,
                "state": record.state,
                "AP": "" if result is None else f"{result.metrics['AP']:.1f}",
                "seconds": "" if result is None else f"{result.seconds:.0f}",
                "run": cell.run_id,
                "failure": "" if failure is None else f"{failure.error}: {failure.message}",
            }
        )
    return rows


def _prices(missing: list[Cell], store: Store) -> dict[str, float] | None:
    """Seconds by run id, from the runs measured on this processor; None where there are none."""
    if not missing:
        return {}  # no other run needs to be read, and no network counted
    here = processor()
    known = [
        r
        for r in store.results()
        if r.environment.get("processor") == here and r.images_per_second > 0
    ]
    if not known:
        return None
    macs_b = macs_by_variant(missing, known[0].num_classes)
    samples = {
        source: training_samples(source) for source in {c.recipe.data.source for c in missing}
    }

    def seconds(cell: Cell) -> float:
        images = samples[cell.recipe.data.source] * cell.recipe.train.epochs
        return price(macs_b[cell.variant], images, known)

    return {c.run_id: seconds(c) for c in missing}
