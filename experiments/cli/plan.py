"""plan, status: the grids of studies before they run, and while they do."""

import json

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
from experiments.durations import parse_duration


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(for_studies(plan, all_by_default=True))
    app.command()(for_studies(status))


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
    from experiments.planning import duration, planned_budget, planned_rows, planned_studies, scaled

    tell_missing(runs)
    if budget is not None:
        rows = planned_budget(asked, runs, parse_duration(budget, "--budget"), jobs)
    else:
        rows = planned_rows(*asked[0], runs) if len(asked) == 1 else planned_studies(asked, runs)
    if "cells" in rows:
        header = ["cell", "state", "time", "MACs", "run"]
        shown = [[r["cell"], r["state"], r["price"], r["macs"], r["run"]] for r in rows["cells"]]
    else:
        header = ["study", "cells", "complete", "to train", "time", "MACs"]
        shown = [
            [
                r["study"],
                *(str(r[k]) for k in ("cells", "complete", "runs")),
                duration(r["seconds"]),
                scaled(r["macs"]),
            ]
            for r in rows["studies"]
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from experiments.cli import render

    render.console.print(render.table(header, shown))
    render.console.print(rows["summary"], highlight=False)
    for claim in rows.get("claims", ()):
        render.console.print(f"  settles {claim}", highlight=False, markup=False)


def status(asked: Asked, *, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Show what has run, what is running, and what failed and why.

    Example: spinenet status ladder
    """
    from experiments.planning import status_rows

    tell_missing(runs)
    asked = runnable(asked)
    found = {study.id: status_rows(study, selection, runs) for study, selection in asked}
    if as_json:
        is_one = len(asked) == 1
        typer.echo(json.dumps(found[asked[0][0].id] if is_one else found, indent=1))
        return
    from experiments.cli import render

    for study, _ in asked:
        rows, metric = found[study.id], study.metrics[0]
        shown = [[r["cell"], r["state"], r[metric], r["seconds"], r["run"]] for r in rows]
        title = study.id if len(asked) > 1 else ""
        header = ["cell", "state", metric, "seconds", "run"]
        render.console.print(render.table(header, shown, title))
        for row in rows:
            if row["failure"]:
                text = f"{row['cell']}: {row['failure']}"
                render.console.print(text, markup=False, highlight=False)
