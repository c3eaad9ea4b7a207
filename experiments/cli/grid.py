"""reproduce, table: the grids of studies run, and shown."""

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from experiments.cli.options import (
    CHECKPOINT_EVERY,
    RUNS,
    Asked,
    BudgetOption,
    CheckpointOption,
    ClusterOption,
    DevicesOption,
    ExecutorOption,
    JobsOption,
    JsonOption,
    OtherCodeOption,
    RecomputeOption,
    RunsOption,
    WandbArtifactsOption,
    WandbOption,
    WorkersOption,
    for_studies,
    interruptible,
    runnable,
    tell_missing,
)
from experiments.cli.places import Place
from experiments.durations import parse_duration
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.budget import Grid
    from experiments.grid import Plan
    from experiments.store import Failure, Store
    from experiments.study import Cell
    from experiments.tables import Report

Form = Literal["terminal", "json", "markdown", "latex", "csv"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(for_studies(reproduce))
    app.command()(for_studies(table))


def reproduce(
    asked: Asked,
    *,
    runs: RunsOption = RUNS,
    executor: ExecutorOption = None,
    cluster: ClusterOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Of slurm: submit the jobs and do not watch them.")
    ] = False,
    print_script: Annotated[
        bool, typer.Option("--print-script", help="Of slurm: print what would be submitted.")
    ] = False,
    jobs: JobsOption = None,
    devices: DevicesOption = 1,
    workers: WorkersOption = 0,
    budget: BudgetOption = None,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", help="Start no run after so long (90m); let running ones end."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed/--no-retry-failed", help="Run failed ones again.")
    ] = True,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="In the end, wait for runs of other workers.")
    ] = True,
    checkpoint_every: CheckpointOption = CHECKPOINT_EVERY,
    recompute: RecomputeOption = False,
    wandb: WandbOption = "auto",
    wandb_artifacts: WandbArtifactsOption = False,
    other_code: OtherCodeOption = "refuse",
    as_json: JsonOption = False,
) -> None:
    """Run what a study still misses, then print its tables.

    Example: spinenet reproduce ladder --profile embedded --seeds 3
    """
    from experiments.grid import make_plan
    from experiments.planning import grids_of
    from experiments.store import Store

    grids, store = grids_of(runnable(asked)), Store(runs)
    place = Place(executor, cluster, jobs, devices)
    planned = make_plan([cell for _, grid in grids for cell in grid], store)
    missing = _wanted(grids, planned, store, budget, place, retry_failed)
    carried_out: dict[str, Any] = {"wandb": wandb, "wandb_artifacts": wandb_artifacts}
    carried_out |= {"recompute": recompute, "num_workers": workers, "weights": asked[0][1].weights}
    carried_out["other_code"] = other_code
    carried_out["checkpoint_s"] = parse_duration(checkpoint_every, "--checkpoint-every")
    seconds = None if max_time is None else parse_duration(max_time, "--max-time")
    failures = []
    if detach or print_script:
        _hand_over(grids, missing, store, place, carried_out, is_shown=print_script)
        return
    waits = wait and budget is None
    if missing or (waits and planned.count("running")):
        failures = _run(grids, missing, planned, store, place, seconds, carried_out, waits)
    shown = _touched(grids, missing) if budget and missing and len(asked) > 1 else grids
    _show(shown, store, "json" if as_json else "terminal", as_list=len(asked) > 1)
    if failures:
        names = ", ".join(cell.label for cell, _ in failures)
        raise UserError(
            f"{len(failures)} of {len(planned.cells)} cells failed: {names}; "
            f"failure.json in their folders under {runs} has the tracebacks"
        )


def table(
    asked: Asked,
    *,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX for booktabs.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a number per line.")] = False,
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
    from experiments.planning import filled_grids
    from experiments.store import Store

    forms: dict[Form, bool] = {"json": as_json, "markdown": markdown, "latex": latex, "csv": csv}
    chosen = [form for form, is_chosen in forms.items() if is_chosen]
    if len(chosen) > 1:
        raise UserError(f"--{' and --'.join(chosen)}: choose one form")
    tell_missing(runs)
    store = Store(runs)
    grids = filled_grids(runnable(asked), store)
    if figure is not None and len(grids) > 1:
        raise UserError("--figure draws one study; name it")
    if into is None and figure is None:
        _show(grids, store, chosen[0] if chosen else "terminal", as_list=len(asked) > 1)
        return
    from experiments.tables import make_report, write_into

    for study, grid in grids:
        report = make_report(study, grid, store)
        if into is not None:
            write_into(into, report)
        if figure is not None:
            _draw(report, figure)


def _draw(report: "Report", path: Path) -> None:
    from experiments.cli.render import save_figure
    from experiments.figure import figure

    save_figure(figure(report), path)
    typer.echo(f"drawn to {path}")


def _wanted(
    grids: "list[Grid]",
    planned: "Plan",
    store: "Store",
    budget: str | None,
    place: Place,
    retry_failed: bool,
) -> "list[Cell]":
    """The cells to run, and a line on each kind that is left out."""
    from experiments.budget import choose
    from experiments.pricing import price_runs

    seconds = None if budget is None else parse_duration(budget, "--budget")
    if running := planned.count("running"):
        typer.echo(f"{running} of these runs are under way in another process", err=True)
    missing = planned.missing
    if not retry_failed:
        missing = [cell for cell in missing if planned.states[cell.run_id] != "failed"]
        if left := len(planned.missing) - len(missing):
            typer.echo(f"{left} failed runs are left as they are", err=True)
    if seconds is None or not missing:
        return missing
    prices = price_runs(missing, store)
    choice = choose(grids, prices, seconds, place.workers(missing))
    fits = f"{len(choice.runs)} of {len(missing)} missing runs fit into {budget}"
    typer.echo(f"{fits}, {len(choice.claims)} claims with them", err=True)
    return [cell for cell in missing if cell.run_id in choice.runs]


def _touched(grids: "list[Grid]", ran: "list[Cell]") -> "list[Grid]":
    """The studies that have one of the runs."""
    runs = {cell.run_id for cell in ran}
    return [(s, grid) for s, grid in grids if any(cell.run_id in runs for cell in grid)]


def _run(
    grids: "list[Grid]",
    missing: "list[Cell]",
    planned: "Plan",
    store: "Store",
    place: Place,
    max_seconds: float | None,
    carried_out: dict[str, Any],
    waits: bool,
) -> "list[tuple[Cell, Failure]]":
    """Run what is missing; then wait, if asked to, for what other workers have or have taken."""
    from experiments.cli.render import GridProgress, progress_console
    from experiments.counting import longest_first
    from experiments.executors import run_cells
    from experiments.faults import refuse_unwritable
    from experiments.grid import await_others

    missing = longest_first(missing)
    others = planned.in_state("running") if waits else []
    cells = [*missing, *others]
    workers = place.workers(cells)
    done = planned.count("complete")
    progress_console.print(f"{len(missing)} runs to train, {done} complete, {workers} at a time")
    _brief(cells, carried_out["weights"])
    refuse_unwritable(store.root)
    of_run = place.runtimes(grids, cells, carried_out)
    where = place.executor
    with interruptible(), GridProgress(cells, elsewhere=others) as progress:
        last_start = time.monotonic() + (math.inf if max_seconds is None else max_seconds)
        left = run_cells(where, missing, store, of_run, workers, progress.watch, max_seconds)
        while waits and not left and (free := await_others(progress.elsewhere, store)):
            rest = last_start - time.monotonic()
            left = run_cells(where, free, store, of_run, workers, progress.watch, rest)
    if left:
        typer.echo(f"{len(left)} runs not started in time; the same command goes on", err=True)
    return progress.failures


def _hand_over(
    grids: "list[Grid]",
    missing: "list[Cell]",
    store: "Store",
    place: Place,
    carried_out: dict[str, Any],
    *,
    is_shown: bool,
) -> None:
    """Submit the runs as jobs and leave them, or only show the script."""
    from experiments.counting import longest_first
    from experiments.executors.slurm import SlurmExecutor

    if not isinstance(place.executor, SlurmExecutor):
        raise UserError("--detach and --print-script are of --executor slurm; give that too")
    if not missing:
        typer.echo("nothing is missing, so nothing is submitted", err=True)
        return
    of_run = place.runtimes(grids, missing, carried_out)
    tasks = [(cell, of_run[cell.run_id]) for cell in longest_first(missing)]
    if is_shown:
        typer.echo(place.executor.script(tasks, store))
        return
    _brief(missing, carried_out["weights"])
    for (cell, _), job in zip(tasks, place.executor.submit(tasks, store), strict=True):
        typer.echo(f"{cell.study}: {cell.label}: job {job.job_id}")


def _brief(missing: "list[Cell]", weights: Path | None) -> None:
    """Prepare the data, and say what there is to know before training on them."""
    from datamodules import open_data
    from experiments.briefing import briefing
    from experiments.cli.render import progress_console

    recipes = {(cell.study, cell.variant): cell.recipe for cell in missing}
    opened = {
        r.data.source: open_data(r.data.source, on_error=r.data.on_error) for r in recipes.values()
    }
    with progress_console.status("preparing the data"):
        for source in opened.values():
            source.prepare()
        for line in briefing(list(recipes.values()), opened, weights):
            progress_console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show(grids: "list[Grid]", store: "Store", form: Form, *, as_list: bool) -> None:
    from experiments import table_formats, tables
    from experiments.cli import render

    reports = [tables.make_report(study, grid, store) for study, grid in grids]
    if form == "json":
        bodies = [table_formats.to_mapping(report) for report in reports]
        typer.echo(json.dumps(bodies if as_list else bodies[0], indent=1, default=str))
    elif form == "csv":
        typer.echo(table_formats.to_csv(reports), nl=False)
    elif form == "terminal":
        for report in reports:
            render.print_report(report)
    else:
        render_one = tables.to_markdown if form == "markdown" else table_formats.to_latex
        typer.echo("\n".join(render_one(report) for report in reports))
