"""reproduce, plan, status, table: a study's grid."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from experiments.cli.options import (
    RUNS,
    DataOption,
    JsonOption,
    OnlyOption,
    ProfileOption,
    RunsOption,
    SeedsOption,
    SetOption,
    StudyArgument,
    WandbOption,
    select,
)
from experiments.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (reproduce, plan, status, table):
        app.command()(command)


def reproduce(
    study: StudyArgument = "ladder",
    profile: ProfileOption = "embedded",
    seeds: SeedsOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = RUNS,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Runs at once [default: one per core]."),
    ] = None,
    wandb: WandbOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Run what a study still misses, then print its tables.

    Example: spinenet reproduce ladder --profile embedded --seeds 3
    """
    chosen, selection = select(study, profile, seeds, data, set_, only)
    from experiments.grid import make_plan
    from experiments.store import Store
    from experiments.study import cells

    grid, store = cells(chosen, selection), Store(runs)
    planned = make_plan(grid, store)
    if planned.count("running"):
        typer.echo(f"{planned.count('running')} of these runs are under way in another process.")
    failures = _run_missing(chosen, planned, store, jobs, wandb) if planned.missing else []
    _show(chosen, grid, store, as_json)
    if failures:
        names = ", ".join(cell.label for cell, _ in failures)
        raise UserError(
            f"{len(failures)} of {len(grid)} cells failed: {names}; "
            f"failure.json in their folders under {runs} has the tracebacks"
        )


def plan(
    study: StudyArgument = "ladder",
    profile: ProfileOption = "embedded",
    seeds: SeedsOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Show what would run, and what it will take, without running it.

    Example: spinenet plan ladder --seeds 5
    """
    chosen, selection = select(study, profile, seeds, data, set_, only)
    from experiments.planning import planned_rows

    rows = planned_rows(chosen, selection, runs)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from experiments.cli.render import console
    from experiments.cli.render import table as draw

    shown = [[r["cell"], r["state"], r["price"], r["run"]] for r in rows["cells"]]
    console.print(draw(["cell", "state", "time", "run"], shown))
    console.print(rows["summary"])


def status(
    study: StudyArgument = "ladder",
    profile: ProfileOption = "embedded",
    seeds: SeedsOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Show what has run, what is running, and what failed and why.

    Example: spinenet status ladder
    """
    chosen, selection = select(study, profile, seeds, data, set_, only)
    from experiments.planning import status_rows

    rows = status_rows(chosen, selection, runs)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from experiments.cli.render import console
    from experiments.cli.render import table as draw

    console.print(
        draw(
            ["cell", "state", "AP", "seconds", "run"],
            [list(map(str, r.values()))[:5] for r in rows],
        )
    )
    for row in rows:
        if row["failure"]:
            console.print(f"[red]{row['cell']}[/]: {row['failure']}", highlight=False)


def table(
    study: StudyArgument = "ladder",
    profile: ProfileOption = "embedded",
    seeds: SeedsOption = None,
    data: DataOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Print a study's tables from the runs at hand: measured, paper, difference, verdicts.

    Example: spinenet table ladder --markdown
    """
    chosen, selection = select(study, profile, seeds, data, set_, only)
    from experiments.store import Store
    from experiments.study import cells

    _show(chosen, cells(chosen, selection), Store(runs), as_json, markdown)


def _run_missing(study: Any, planned: Any, store: Any, jobs: int | None, wandb: str) -> list[Any]:
    from datamodules import open_source
    from experiments.cli.render import GridProgress, console
    from experiments.executors.local import default_workers, run_cells
    from experiments.grid import paper_values
    from experiments.training import Runtime

    missing = planned.missing
    workers = jobs or default_workers(missing)
    console.print(
        f"{len(missing)} runs to train, {planned.count('complete')} complete, {workers} at a time"
    )
    with console.status("preparing the data"):
        for source in dict.fromkeys(cell.recipe.data.source for cell in missing):
            open_source(source).prepare()
    printed = paper_values(study, missing)
    runtimes = {
        c.run_id: Runtime(wandb=wandb, group=c.profile, paper=printed[c.run_id])  # type: ignore[arg-type]
        for c in missing
    }
    try:
        with GridProgress(missing) as progress:
            run_cells(missing, store, runtimes, workers, progress.watch)
    except KeyboardInterrupt:
        typer.echo("interrupted; finished runs are kept, the same command goes on", err=True)
        raise typer.Exit(130) from None
    return progress.failures


def _show(study: Any, grid: Any, store: Any, as_json: bool, markdown: bool = False) -> None:
    from experiments import tables

    report = tables.make_report(study, grid, store)
    if as_json:
        typer.echo(tables.to_json(report))
    elif markdown:
        typer.echo(tables.to_markdown(report))
    else:
        from experiments.cli.render import print_report

        print_report(report)
