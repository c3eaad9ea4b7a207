"""What `plan` and `status` print: the grids' cells with their states, prices and failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.budget import Grid, choose
from experiments.durations import duration
from experiments.executors.jobs import queued_jobs
from experiments.grid import Plan, make_plan
from experiments.pricing import Price, price_runs
from experiments.store import Record, Store
from experiments.study import MOST_SEEDS, Cell, Selection, Study, cells

Asked = Sequence[tuple[Study, Selection]]


def planned_rows(
    study: Study, selection: Selection, runs: Path, jobs: int | None = None
) -> dict[str, Any]:
    """Each cell's state and price, and the sum over what is missing."""
    grid, store = cells(study, selection, without_data=True), Store(runs)
    planned = make_plan(grid, store)
    prices = price_runs(planned.missing, store)
    rows = [row for _, row in _cell_rows(grid, planned, prices)]
    return {"cells": rows, **_totals(planned, prices, jobs)}


def planned_studies(asked: Asked, runs: Path, jobs: int | None = None) -> dict[str, Any]:
    """A row per study and the sums over all, a run that several ask for counted in the first."""
    grids, planned, prices = _priced(asked, Store(runs))
    rows = _study_rows(grids, planned, prices)
    return {"studies": rows, **_totals(planned, prices, jobs)}


def planned_budget(
    asked: Asked, runs: Path, budget_s: float, jobs: int | None = None
) -> dict[str, Any]:
    """The missing runs that fit into the budget, in the order in which they were chosen, and the
    claims that are judged by them.
    """
    grids, planned, prices = _priced(asked, Store(runs))
    workers = jobs or _workers(planned)
    choice = choose(grids, prices, budget_s, workers)
    chosen = {run: prices[run] for run in choice.runs}
    rows = dict(_cell_rows([c for c in planned.missing if c.run_id in chosen], planned, chosen))
    return {
        "claims": list(choice.claims),
        "cells": [rows[run] for run in choice.runs],
        "budget_s": budget_s,
        **_totals(planned, chosen, workers),
    }


def grids_of(asked: Asked, *, without_data: bool = False) -> list[Grid]:
    """Every study with its cells."""
    return [(s, cells(s, selection, without_data=without_data)) for s, selection in asked]


def filled_grids(asked: Asked, store: Store) -> list[Grid]:
    """Every study with its cells; where nobody asked for a number of seeds, of as many as the store
    has results of, up to MOST_SEEDS.
    """
    grids: list[Grid] = []
    for study, selection in asked:
        most = max(selection.seeds, MOST_SEEDS if selection.any_seeds else 0)
        grid = cells(study, replace(selection, seeds=most))
        records = store.records(cell.run_id for cell in grid)
        ended = (cell.seed for cell in grid if records[cell.run_id].state == "complete")
        seeds = max(selection.seeds, 1 + max(ended, default=0))
        grids.append((study, [cell for cell in grid if cell.seed < seeds]))
    return grids


def status_rows(study: Study, selection: Selection, runs: Path) -> list[dict[str, Any]]:
    """Each cell's state, first metric and seconds, and its failure if it has one."""
    grid, metric, store = cells(study, selection), study.metrics[0], Store(runs)
    records, queued = store.records(c.run_id for c in grid), queued_jobs(store)
    rows = []
    for cell in grid:
        record = records[cell.run_id]
        result, failure = record.result, record.failure
        rows.append(
            {
                "cell": cell.label,
                "state": _state(record, queued.get(cell.run_id)),
                metric: "" if result is None else f"{result.metrics[metric]:.1f}",
                "seconds": "" if result is None else f"{result.seconds:.0f}",
                "run": cell.run_id,
                "failure": "" if failure is None else f"{failure.error}: {failure.message}",
            }
        )
    return rows


def _state(record: Record, job: str | None) -> str:
    return f"queued, job {job}" if job and record.state == "missing" else record.state


def scaled(count: float) -> str:
    """A count for people, with the prefix of its thousands: `2.7 T`, `35 P`, `1.2 E`."""
    for prefix, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if count >= size:
            return f"{count / size:.3g} {prefix}"
    return f"{count / 1e9:.3g} G"


def _priced(asked: Asked, store: Store) -> tuple[list[Grid], Plan, dict[str, Price]]:
    grids = grids_of(asked, without_data=True)
    planned = make_plan([cell for _, grid in grids for cell in grid], store)
    return grids, planned, price_runs(planned.missing, store)


def _cell_rows(
    cells: Sequence[Cell], planned: Plan, prices: Mapping[str, Price]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run id and row of each cell; a run that several cells ask for is paid for once. The price is
    in seconds of one process, and none of a run that costs nothing.
    """
    unpaid, has_studies = dict(prices), len({cell.study for cell in planned.cells}) > 1
    for cell in cells:
        price = unpaid.pop(cell.run_id, None)
        yield (
            cell.run_id,
            {
                "cell": f"{cell.study}: {cell.label}" if has_studies else cell.label,
                "state": planned.states[cell.run_id],
                "price_s": None if price is None else price.seconds,
                "macs": None if price is None else price.macs,
                "run": cell.run_id,
            },
        )


def _study_rows(
    grids: Sequence[Grid], planned: Plan, prices: Mapping[str, Price]
) -> list[dict[str, Any]]:
    unpaid, rows = dict(prices), []
    for study, grid in grids:
        runs = {cell.run_id for cell in grid}
        own = {run: unpaid.pop(run) for run in runs if run in unpaid}
        complete = sum(planned.states[run] == "complete" for run in runs)
        row = {"study": study.id, "cells": len(grid), "complete": complete, "runs": len(own)}
        rows.append(row | _sums(own))
    return rows


def _sums(prices: Mapping[str, Price]) -> dict[str, float]:
    found = prices.values()
    return {"price_s": sum(p.seconds for p in found), "macs": sum(p.macs for p in found)}


def _totals(
    planned: Plan, prices: Mapping[str, Price], workers: int | None = None
) -> dict[str, Any]:
    """Sums over the runs that shall be made, the time by the clock with so many at once, and both
    in words.
    """
    workers = workers or _workers(planned)
    longest = max((price.seconds for price in prices.values()), default=0.0)
    wall_s = max(longest, sum(price.seconds for price in prices.values()) / workers)
    return {
        **_sums(prices),
        "wall_s": wall_s,
        "at_once": workers,
        "summary": _summary(planned, prices, wall_s, workers),
        "basis": _basis(prices),
    }


def _basis(prices: Mapping[str, Price]) -> str:
    """What the prices rest on."""
    if not prices:
        return ""
    runs = max(price.known_runs for price in prices.values())
    if not runs:
        return "priced by a probe of this machine: no stored run here was made on it"
    return f"priced by {runs} stored run{'s' * (runs > 1)} of this machine"


def _workers(planned: Plan) -> int:
    if not planned.missing:
        return 1  # torch need not be imported to say so
    from experiments.executors.local import default_workers

    return default_workers(planned.missing)


def _summary(planned: Plan, prices: Mapping[str, Price], wall_s: float, workers: int) -> str:
    """What there is to do, and what it takes; `prices` are of what shall run."""
    missing = len(planned.missing)
    of_all = f" of {missing}" if len(prices) < missing else ""
    text = f"{len(prices)}{of_all} runs to train, {planned.count('complete')} complete"
    if not prices:
        return text
    text += f"; about {duration(wall_s)} by the clock on this machine, {workers} at a time, "
    text += f"multiply-adds {scaled(_sums(prices)['macs'])}"
    if any(getattr(cell.recipe.data.source, "root", None) == "" for cell in planned.missing):
        text += "; without --data, pictures are counted as those of the paper's data sets"
    if len({cell.study for cell in planned.cells}) > 1:
        text += "; a run that several studies ask for is counted in the first"
    return text
