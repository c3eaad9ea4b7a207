"""search-spaces, search-table, search-contest, search-found: what there is to search, what the
proxy is worth, which controller finds more at the same number of samples, and what was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.options import (
    RUNS,
    JobsOption,
    JsonOption,
    OtherCodeOption,
    RunsOption,
    interruptible,
)
from experiments.durations import parse_duration
from experiments.errors import UserError, did_you_mean
from experiments.search.places import FOUND, RESULTS, TABLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.code_version import OtherCode
    from experiments.executors.following import Event
    from experiments.search.contest import Contest, ContestConfig
    from experiments.search.table import Plan, Table
    from experiments.store import Failure, Store
    from experiments.study import Cell

WRITTEN_EVERY = 10  # runs of a table, so that what stops a session costs the file no more
IntoOption = Annotated[
    Path | None, typer.Option("--into", help="Replace its block in a Markdown file.")
]
FigureOption = Annotated[Path | None, typer.Option("--figure", help="Draw it: .svg or .png.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(name="search-spaces")(spaces)
    app.command(name="search-table")(table)
    app.command(name="search-contest")(contest)
    app.command(name="search-found")(found_by_searches)


def spaces(into: IntoOption = None, as_json: JsonOption = False) -> None:
    """List the spaces that can be searched, with their sizes as the paper counts them.

    Example: spinenet search-spaces
    """
    from experiments.search.documents import SPACES_BLOCK, SPACES_HEADER, spaces_rows
    from experiments.tables import markdown

    rows = spaces_rows()
    if into is not None:
        _write_block(into, SPACES_BLOCK, markdown(SPACES_HEADER, rows))
    if as_json:
        from spinenet.search import space

        sizes = {name: space.space(name).sizes() for name in space.spaces()}
        typer.echo(json.dumps(sizes, indent=1))
    elif into is None:
        _print_spaces(SPACES_HEADER, rows)


def table(
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Networks.")] = 300,
    repeated: Annotated[int, typer.Option(min=0, help="Of them with several seeds.")] = 30,
    repeats: Annotated[int, typer.Option(min=1, help="Seeds of those.")] = 3,
    longer: Annotated[int, typer.Option(min=0, help="Of them by the longer recipe too.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    profile: Annotated[str, typer.Option("--profile", "-p", help="Size of the proxy.")] = "proxy",
    long_profile: Annotated[str, typer.Option(help="Of the longer training.")] = "embedded",
    jobs: JobsOption = None,
    max_time: Annotated[
        str | None, typer.Option("--max-time", help="Start no run after so long (90m).")
    ] = None,
    runs: RunsOption = RUNS,
    other_code: OtherCodeOption = "refuse",
    out: Annotated[Path, typer.Option("--out", help="File of the table.")] = TABLE,
    networks: Annotated[
        Path | None,
        typer.Option("--networks", help="A table whose networks a new one takes, by any proxy."),
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Train nothing; say what the file has.")
    ] = False,
    into: IntoOption = None,
    figure: FigureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a sample of the spaces, and say what the proxy is worth; go on where it was stopped.

    Example: spinenet search-table --max-time 3h --jobs 2
    """
    from experiments.cli.render import progress_console
    from experiments.search.table import TableConfig, plan, read
    from experiments.store import Store

    if stored:
        found = read(out)
    else:
        config = TableConfig(
            samples=samples,
            repeated=repeated,
            repeats=repeats,
            longer=longer,
            seed=seed,
            profile=profile,
            long_profile=long_profile,
        )
        seconds = None if max_time is None else parse_duration(max_time, "--max-time")
        # A line and no spinner, whose thread would keep counting to one process.
        progress_console.print("drawing networks and counting what they cost")
        planned = plan(config, out, networks)
        found = _train(planned, Store(runs), out, jobs, seconds, other_code)
    _tell_worth(found, into, figure, as_json)


def contest(
    name: Annotated[str, typer.Argument(help="synthetic or replay.")],
    space: Annotated[str, typer.Option(help="The space that is searched.")] = "spinenet",
    samples: Annotated[int, typer.Option("--samples", "-n", min=5, help="Of each search.")] = 500,
    seeds: Annotated[int, typer.Option(min=2, help="Searches of each controller.")] = 30,
    lag: Annotated[int, typer.Option(min=1, help="As of `search`.")] = 4,
    table_file: Annotated[
        Path, typer.Option("--table", help="The table of trained networks.")
    ] = TABLE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Its file (results/search/NAME.json).")
    ] = None,
    into: IntoOption = None,
    figure: FigureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the controllers: synthetic knows the optimum, replay models the table of networks.

    Example: spinenet search-contest synthetic --into docs/search.md
    """
    from experiments.search import stored
    from experiments.search.contest import CONTESTS, Contest, ContestConfig, is_of
    from experiments.search.stored import refuse_other_settings
    from experiments.search.table import read

    if name not in CONTESTS:
        raise UserError(f"contest {name!r} is unknown; {did_you_mean(name, CONTESTS)}")
    config = ContestConfig(name, space, samples, seeds, lag)
    path = out or RESULTS / f"{name}.json"
    way_out = f"remove it, and `spinenet search-contest {name}` holds it again"
    held, trained = stored.read(path, Contest, way_out), read(table_file)
    if held is not None:
        refuse_other_settings(path, held.config, config)
    if held is None or not is_of(held, trained):
        held = _hold(config, trained)
        stored.write(path, held)
    else:
        commit = str(held.environment.get("commit", "unknown"))[:10]
        typer.echo(f"{path} is of commit {commit}; {way_out}", err=True)
    _tell_contest(held, into, figure, as_json)


def found_by_searches(
    folder: Annotated[
        Path, typer.Argument(help="What `spinenet search-report NAME --out` has kept.")
    ] = FOUND,
    into: IntoOption = None,
    figure: FigureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set searches beside one another that were kept as files.

    Example: spinenet search-found --into docs/search.md
    """
    from experiments.search import documents
    from experiments.search.findings import read_all

    found = read_all(folder)
    if into is not None:
        _write_block(into, documents.FOUND_BLOCK, documents.found_markdown(found))
    if figure is not None:
        if not found:
            raise UserError(f"--figure: {documents.NO_FINDINGS}")
        from experiments.search.figures import found_figure

        _draw(found_figure(found), figure)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
    elif into is None and figure is None:
        if found:
            _print(documents.FOUND_HEADER, documents.found_rows(found))
            typer.echo(documents.found_caption(found))
        else:
            typer.echo(documents.NO_FINDINGS)


def _train(
    planned: Plan,
    store: Store,
    out: Path,
    jobs: int | None,
    max_seconds: float | None,
    other_code: OtherCode,
) -> Table:
    """Run what is missing and write what there is, every few runs and when the user stops it."""
    from experiments.cli.render import progress_console
    from experiments.search import stored

    def write() -> Table:
        found = planned.table(store, out)
        if len(found.runs) > len(planned.known):
            stored.write(out, found)
        return found

    missing, failures = planned.missing(store), []
    with interruptible():
        try:
            if missing:
                failures = _run(missing, store, jobs, max_seconds, other_code, write)
        finally:
            found = write()
            progress_console.print(f"{len(found.runs)} of {len(planned.entries)} runs in {out}")
    _refuse_failures(planned, store, failures)
    return found


def _run(
    missing: list[Cell],
    store: Store,
    jobs: int | None,
    max_seconds: float | None,
    other_code: OtherCode,
    write: Callable[[], object],
) -> list[tuple[Cell, Failure]]:
    """Train the cells, their price told before, and write after every few; those that failed."""
    from datamodules import open_data
    from experiments.cli.render import GridProgress, progress_console
    from experiments.durations import duration
    from experiments.executors import dropping_checkpoints, local, run_cells
    from experiments.pricing import price_runs
    from experiments.runtime import Runtime

    with progress_console.status("preparing the data"):
        for source in {cell.recipe.data.source: None for cell in missing}:
            open_data(source).prepare()
    prices = {run: price.seconds for run, price in price_runs(missing, store).items()}
    workers = jobs or local.default_workers(missing)
    about = duration(sum(prices.values()) / workers)
    progress_console.print(f"{len(missing)} runs to train, {workers} at a time, about {about}")
    runtimes = {
        c.run_id: Runtime(wandb="disabled", group=c.profile, other_code=other_code) for c in missing
    }
    with GridProgress(missing, prices) as progress:
        drop = dropping_checkpoints(progress.watch, store)
        ended = 0

        def watch(cell: Cell, event: Event) -> None:
            nonlocal ended
            drop(cell, event)
            ended += event["kind"] == "done"
            if event["kind"] == "done" and ended % WRITTEN_EVERY == 0:
                write()

        run_cells(local, missing, store, runtimes, workers, watch, max_seconds)
    return progress.failures


def _refuse_failures(planned: Plan, store: Store, failures: list[tuple[Cell, Failure]]) -> None:
    """Raise UserError if runs failed that say nothing of their networks."""
    left = {cell.run_id for cell in planned.missing(store)}
    failed = [(cell, failure) for cell, failure in failures if cell.run_id in left]
    if failed:
        cell, failure = failed[0]
        raise UserError(
            f"{len(failed)} runs failed, {cell.label} with {failure.error}: {failure.message}; "
            f"failure.json in their folders under {store.root} has the tracebacks, the same "
            "command tries them again"
        )


def _hold(config: ContestConfig, table: Table | None) -> Contest:
    from rich.progress import Progress

    from experiments.cli.render import progress_console
    from experiments.search.contest import hold, objective

    made, facts = objective(config, table)
    with interruptible(), Progress(console=progress_console) as progress:
        task = progress.add_task(f"{config.name}, {config.seeds} seeds")
        return hold(
            config,
            made,
            facts,
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def _tell_worth(found: Table | None, into: Path | None, figure: Path | None, as_json: bool) -> None:
    from experiments.search import documents
    from experiments.search.worth import worth

    said = None if found is None else worth(found)
    if into is not None:
        _write_block(into, documents.PROXY_BLOCK, documents.proxy_markdown(found))
    if figure is not None:
        if found is None or said is None:
            raise UserError(f"--figure: {documents.NO_TABLE}")
        from experiments.search.figures import proxy_figure

        _draw(proxy_figure(found), figure)
    if as_json:
        typer.echo(json.dumps(None if said is None else asdict(said), indent=1))
    elif into is None and figure is None:
        if found is None or said is None:
            typer.echo(documents.NO_TABLE)
        else:
            _print(*documents.worth_table(found))
            _print(*documents.standings_table(said))


def _tell_contest(held: Contest, into: Path | None, figure: Path | None, as_json: bool) -> None:
    from experiments.search import documents

    name = held.config.name
    if into is not None:
        _write_block(into, documents.CONTEST_BLOCKS[name], documents.contest_markdown(name, held))
    if figure is not None:
        from experiments.search.figures import contest_figure

        _draw(contest_figure(held), figure)
    if as_json:
        typer.echo(json.dumps(asdict(held), indent=1))
    elif into is None and figure is None:
        typer.echo(documents.contest_caption(held))
        _print(*documents.contest_table(held))
        typer.echo(documents.contest_verdict(held))


def _print_spaces(header: list[str], rows: list[list[str]]) -> None:
    """The table of the documents, its sizes by part in a table of their own, for narrow screens."""
    from spinenet.search.space import space

    sizes = {row[0]: space(row[0]).sizes() for row in rows}
    parts = list(dict.fromkeys(part for found in sizes.values() for part in found))
    _print([*header[:3], header[4]], [[*row[:3], row[4]] for row in rows])
    typer.echo(f"\n{header[3][0].upper()}{header[3][1:]}, the product of:")
    _print(
        [header[0], *parts],
        [[name, *(_size(found.get(part)) for part in parts)] for name, found in sizes.items()],
    )


def _size(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count:,}" if count < 1e9 else f"{count:.2e}"


def _print(header: list[str], rows: list[list[str]]) -> None:
    from experiments.cli.render import console
    from experiments.cli.render import table as drawn

    console.print(drawn(header, rows))


def _write_block(path: Path, name: str, text: str) -> None:
    from experiments.tables import replace_block

    replace_block(path, name, text + "\n")
    typer.echo(f"written into {path}", err=True)


def _draw(drawn: Figure, path: Path) -> None:
    from experiments.cli.render import save_figure

    save_figure(drawn, path)
    typer.echo(f"drawn to {path}", err=True)
