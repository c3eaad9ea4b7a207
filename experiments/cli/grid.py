"""reproduce, plan, status, table: a study's grid."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.options import (
    RUNS,
    JsonOption,
    RecomputeOption,
    RunsOption,
    WandbArtifactsOption,
    WandbOption,
    for_study,
)
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.grid import Plan
    from experiments.store import Failure, Store
    from experiments.study import Cell, Selection, Study
    from experiments.tables import Report


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (reproduce, plan, status, table):
        app.command()(for_study(command))


def reproduce(
    study: "Study",
    selection: "Selection",
    *,
    runs: RunsOption = RUNS,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Runs at once (default: by cores).")
    ] = None,
    recompute: RecomputeOption = False,
    wandb: WandbOption = "auto",
    wandb_artifacts: WandbArtifactsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run what a study still misses, then print its tables.

    Example: spinenet reproduce ladder --profile embedded --seeds 3
    """
    from experiments.grid import make_plan
    from experiments.store import Store
    from experiments.study import cells

    grid, store = cells(study, selection), Store(runs)
    planned = make_plan(grid, store)
    if running := planned.count("running"):
        typer.echo(f"{running} of these runs are under way in another process", err=True)
    carried_out = {
        "wandb": wandb,
        "wandb_artifacts": wandb_artifacts,
        "recompute": recompute,
        "weights": selection.weights,
    }
    failures = _run_missing(study, planned, store, jobs, carried_out) if planned.missing else []
    _show(study, grid, store, "json" if as_json else "terminal")
    if failures:
        names = ", ".join(cell.label for cell, _ in failures)
        raise UserError(
            f"{len(failures)} of {len(grid)} cells failed: {names}; "
            f"failure.json in their folders under {runs} has the tracebacks"
        )


def plan(
    study: "Study", selection: "Selection", *, runs: RunsOption = RUNS, as_json: JsonOption = False
) -> None:
    """Show what would run, and what it will take, without running it.

    Example: spinenet plan ladder --seeds 5
    """
    from experiments.planning import planned_rows

    rows = planned_rows(study, selection, runs)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from experiments.cli import render

    shown = [[r["cell"], r["state"], r["price"], r["run"]] for r in rows["cells"]]
    render.console.print(render.table(["cell", "state", "time", "run"], shown))
    render.console.print(rows["summary"])


def status(
    study: "Study", selection: "Selection", *, runs: RunsOption = RUNS, as_json: JsonOption = False
) -> None:
    """Show what has run, what is running, and what failed and why.

    Example: spinenet status ladder
    """
    from experiments.planning import status_rows

    rows = status_rows(study, selection, runs)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from experiments.cli import render

    shown = [[r["cell"], r["state"], r["AP"], r["seconds"], r["run"]] for r in rows]
    render.console.print(render.table(["cell", "state", "AP", "seconds", "run"], shown))
    for row in rows:
        if row["failure"]:
            render.console.print(f"{row['cell']}: {row['failure']}", markup=False, highlight=False)


def table(
    study: "Study",
    selection: "Selection",
    *,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    into: Annotated[
        Path | None, typer.Option("--into", help="Replace the study's block in a Markdown file.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw it to a file: .svg or .png.")
    ] = None,
) -> None:
    """Print a study's tables from the runs at hand: measured, paper, difference, verdicts.

    Example: spinenet table ladder --markdown
    """
    from experiments.store import Store
    from experiments.study import cells

    grid, store = cells(study, selection), Store(runs)
    if into is None and figure is None:
        _show(study, grid, store, "json" if as_json else "markdown" if markdown else "terminal")
        return
    from experiments.tables import make_report, write_into

    report = make_report(study, grid, store)
    if into is not None:
        write_into(into, report)
    if figure is not None:
        _draw(report, figure)


def _draw(report: "Report", path: Path) -> None:
    from experiments.figure import figure
    from spinenet.drawing import save

    try:
        save(figure(report), path)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    typer.echo(f"drawn to {path}")


def _run_missing(
    study: "Study", planned: "Plan", store: "Store", jobs: int | None, carried_out: dict[str, Any]
) -> "list[tuple[Cell, Failure]]":
    from experiments.cli.render import GridProgress, progress_console
    from experiments.executors.local import default_workers, run_cells
    from experiments.grid import longest_first, paper_values
    from experiments.training import Runtime

    missing = longest_first(planned.missing)
    workers = jobs or default_workers(missing)
    done = planned.count("complete")
    progress_console.print(f"{len(missing)} runs to train, {done} complete, {workers} at a time")
    _brief(missing, carried_out["weights"])
    printed = paper_values(study, missing)
    runtimes = {
        cell.run_id: Runtime(
            group=cell.profile,
            variant={cell.study: cell.variant},
            paper=printed[cell.run_id],
            **carried_out,
        )
        for cell in missing
    }
    try:
        with GridProgress(missing) as progress:
            run_cells(missing, store, runtimes, workers, progress.watch)
    except KeyboardInterrupt:
        typer.echo("interrupted; finished runs are kept, the same command goes on", err=True)
        raise typer.Exit(130) from None
    return progress.failures


def _brief(missing: "list[Cell]", weights: Path | None) -> None:
    """Prepare the data, and say what there is to know before training on them."""
    from datamodules import open_data
    from experiments.briefing import briefing
    from experiments.cli.render import progress_console

    recipes = {cell.variant: cell.recipe for cell in missing}
    opened = {r.data.source: open_data(r.data.source) for r in recipes.values()}
    with progress_console.status("preparing the data"):
        for source in opened.values():
            source.prepare()
        for line in briefing(list(recipes.values()), opened, weights):
            progress_console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show(study: "Study", grid: "list[Cell]", store: "Store", form: str) -> None:
    from experiments import tables
    from experiments.cli import render

    report = tables.make_report(study, grid, store)
    show: dict[str, Any] = {
        "json": lambda: typer.echo(tables.to_json(report)),
        "markdown": lambda: typer.echo(tables.to_markdown(report)),
        "terminal": lambda: render.print_report(report),
    }
    show[form]()
