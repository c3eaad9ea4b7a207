"""plan, status: the grids of studies before they run, and while they do."""

import json
from collections import Counter
from typing import Any

import typer

from experiments.cli.options import (
    RUNS,
    Asked,
    BudgetOption,
    JobsOption,
    JsonOption,
    RunsOption,
    for_studies,
    runnable,
    tell_missing,
)
from experiments.durations import duration, parse_duration

PRICE = "process time"  # a column's head


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(for_studies(plan, all_by_default=True))
    app.command()(for_studies(status, all_by_default=True))


def plan(
    asked: Asked,
    *,
    runs: RunsOption = RUNS,
    jobs: JobsOption = None,
    budget: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would run, and what it will take, without running it; of all studies, if none is
    named.

    Example: spinenet plan --profile paper
    """
    from experiments.planning import planned_budget, planned_rows, planned_studies

    tell_missing(runs)
    if budget is not None:
        rows = planned_budget(asked, runs, parse_duration(budget, "--budget"), jobs)
    elif len(asked) == 1:
        rows = planned_rows(*asked[0], runs, jobs)
    else:
        rows = planned_studies(asked, runs, jobs)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        _print_plan(rows)


def _print_plan(rows: dict[str, Any]) -> None:
    from experiments.cli.render import console, table

    if rows.get("claims"):
        console.print("These runs would judge:", highlight=False)
        for claim in rows["claims"]:
            console.print(f"  {claim}", highlight=False, markup=False)
        console.print()
    if "cells" in rows:
        header = ["cell", "state", PRICE, "MACs", "run"]
        shown = [[r["cell"], r["state"], *_price(r), r["run"]] for r in rows["cells"]]
    else:
        header = ["study", "cells", "complete", "to train", PRICE, "MACs"]
        counts = ("cells", "complete", "runs")
        shown = [[r["study"], *(str(r[k]) for k in counts), *_price(r)] for r in rows["studies"]]
    console.print(table(header, shown))
    console.print(rows["summary"], highlight=False)
    if rows["basis"]:
        text = f"{rows['basis']}; {PRICE} is that of one process, run after run; MACs are those of "
        console.print(f"{text}training", style="dim", highlight=False)


def _price(row: dict[str, Any]) -> list[str]:
    from experiments.planning import scaled

    if row["price_s"] is None:
        return ["", ""]
    return [duration(row["price_s"]), scaled(row["macs"])]


def status(asked: Asked, *, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Show what has run, what is running, and what failed and why; of all studies, if none is
    named.

    Example: spinenet status ladder
    """
    from experiments.planning import status_rows

    tell_missing(runs)
    asked = runnable(asked)
    found = {study.id: status_rows(study, selection, runs) for study, selection in asked}
    is_one = len(asked) == 1
    if as_json:
        typer.echo(json.dumps(found[asked[0][0].id] if is_one else found, indent=1))
        return
    from experiments.cli.render import console, table

    if is_one:
        ((study_id, rows),) = found.items()
        metric = asked[0][0].metrics[0]
        shown = [[r["cell"], r["state"], r[metric], r["seconds"], r["run"]] for r in rows]
        console.print(table(["cell", "state", metric, "seconds", "run"], shown))
    else:
        console.print(table(["study", "cells", "state of them"], _states(found), prose=2))
        console.print("`spinenet status STUDY` lists a study's cells.", style="dim")
    for study_id, rows in found.items():
        for row in rows:
            if row["failure"]:
                text = f"{row['cell']}: {row['failure']}"
                text = text if is_one else f"{study_id}: {text}"
                console.print(text, markup=False, highlight=False)


def _states(found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """A row per study: how many of its cells are in each state."""
    shown = []
    for study_id, rows in found.items():
        states = Counter(row["state"].partition(",")[0] for row in rows)  # a queued one names a job
        told = ", ".join(f"{count} {state}" for state, count in states.most_common())
        shown.append([study_id, str(len(rows)), told])
    return shown
