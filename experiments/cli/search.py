"""search, search-report: find a network on a budget, and say what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.options import (
    RUNS,
    SEARCHES,
    ClusterOption,
    ExecutorOption,
    JobsOption,
    JsonOption,
    OtherCodeOption,
    RunsOption,
    WandbOption,
    interruptible,
)
from experiments.cli.places import Place
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.cli.render import GridProgress, SearchProgress
    from experiments.search.candidates import LimitError, Search
    from experiments.search.findings import Findings
    from experiments.store import Failure
    from experiments.study import Cell
    from spinenet.genotype import Genotype

FolderOption = Annotated[Path, typer.Option("--searches", help="Folder of the searches.")]
NameArgument = Annotated[str, typer.Argument(help="The search's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(search)
    app.command(name="search-report")(report)


def search(
    name: NameArgument,
    space: Annotated[
        str, typer.Option(help="spinenet, r0-sp53, r23-sp30, r14-sp39, r35-sp18, hourglass, fish.")
    ] = "spinenet",
    controller: Annotated[str, typer.Option(help="policy, evolution or random.")] = "policy",
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Networks to try.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the controller.")] = 0,
    lag: Annotated[
        int, typer.Option(min=1, help="Samples under way at most; decides what is learned when.")
    ] = 4,
    macs_m: Annotated[
        float | None, typer.Option(help="Most multiply-adds, 1e6, of the proxy network.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe of the proxy.")] = "proxy",
    profile: Annotated[str, typer.Option("--profile", "-p", help="Size of the proxy.")] = "proxy",
    asynchronous: Annotated[
        bool, typer.Option("--asynchronous", help="Tell results as runs end; no worker waits.")
    ] = False,
    finalists: Annotated[
        int,
        typer.Option(min=0, help="Of the best, so many trained again with two other seeds."),
    ] = 0,
    executor: ExecutorOption = None,
    cluster: ClusterOption = None,
    jobs: JobsOption = None,
    runs: RunsOption = RUNS,
    searches: FolderOption = SEARCHES,
    other_code: OtherCodeOption = "refuse",
    wandb: WandbOption = "disabled",
    as_json: JsonOption = False,
) -> None:
    """Search an architecture, or go on with a search: each candidate is an ordinary run.

    Example: spinenet search mine --space r0-sp53 --controller evolution --samples 200
    """
    from experiments.leases import lock
    from experiments.search.asynchronous import make_search
    from experiments.search.config import SearchConfig, keep_settings
    from experiments.search.findings import findings
    from experiments.search.proxy import base_recipe
    from experiments.store import Store

    config = SearchConfig(
        space=space,
        controller=controller,  # type: ignore[arg-type]
        samples=samples,
        seed=seed,
        lag=lag,
        macs_m=macs_m,
        recipe=recipe,
        profile=profile,
        reward="top1" if base_recipe(recipe, profile).model.kind == "classifier" else "AP",
        mode="asynchronous" if asynchronous else "synchronous",
    )
    folder = searches / name
    made = make_search(config, Store(runs), folder)
    with lock(folder, doing="searching"):
        keep_settings(folder, config, made.proxy.run_id)
        carried_out: dict[str, Any] = {"wandb": wandb, "other_code": other_code}
        place = Place(executor, cluster, jobs)
        limit = _carry_out(made, folder, place, carried_out)
        if finalists:
            _run_finals(made, finalists, folder, place, carried_out)
    _show(findings(name, made, folder), as_json)
    if limit is not None:
        raise limit


def report(
    name: NameArgument,
    runs: RunsOption = RUNS,
    searches: FolderOption = SEARCHES,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the best network as a genotype file.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw the best network: an SVG or PNG file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Keep what was found, for `search-found`."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a search has found so far, from its finished runs.

    Example: spinenet search-report mine --export mine.yaml
    """
    from experiments.search import stored
    from experiments.search.asynchronous import replayed
    from experiments.search.findings import findings
    from experiments.store import Store

    folder = searches / name
    made = replayed(folder, Store(runs))
    found = findings(name, made, folder)
    _show(found, as_json)
    if export is not None or draw is not None or out is not None:
        best = _best(made, found)
        if export is not None:
            _write_best(best, export)
        if draw is not None:
            _draw_best(best, draw)
        if out is not None:
            stored.write(out, found)
            typer.echo(f"kept in {out}", err=True)


def _carry_out(
    made: Search, folder: Path, place: Place, carried_out: dict[str, Any]
) -> LimitError | None:
    """Run what the search asks for, as it asks; the limit on multiply-adds, if that ended it."""
    from experiments.search.candidates import LimitError

    met = None
    from datamodules import open_data
    from experiments.cli.render import SearchProgress, progress_console

    workers = _workers(made, place)
    with progress_console.status("preparing the data"):
        open_data(made.proxy.recipe.data.source).prepare()
    with interruptible(), SearchProgress(made) as progress, _noted(made, folder, workers, progress):
        try:
            _run_all(made, place, workers, carried_out, progress)
        except LimitError as error:
            met = error
    for cell, failure in _stuck(made, progress):
        raise _failed(cell, failure)
    return met


@contextmanager
def _noted(made: Search, folder: Path, workers: int, progress: GridProgress) -> Iterator[None]:
    """A session, of which the search's folder has a line when it ends, however it ends."""
    from experiments.search import pace

    start = time.monotonic()
    try:
        yield
    finally:
        cores = workers * made.proxy.recipe.train.threads
        records = made.store.records(progress.ended).values()
        ended = [record.result for record in records if record.result is not None]
        pace.note(folder, pace.session(time.monotonic() - start, cores, ended))


def _workers(made: Search, place: Place) -> int:
    """Runs at once. Raises UserError where they are all, and a controller would learn nothing."""
    from experiments.cli.render import progress_console

    config = made.config
    if config.mode == "synchronous":
        workers = place.workers([made.proxy] * config.lag)
        if workers > config.lag:
            progress_console.print(
                f"{workers} at a time, but no more than {config.lag} samples are ever under way: "
                f"give a new search --lag {workers} or more, or --asynchronous"
            )
        return workers
    workers = place.workers([made.proxy] * config.samples)
    learns = config.controller != "random"
    if learns and place.jobs is None and 1 < config.samples <= workers:
        raise UserError(
            f"--asynchronous: all {config.samples} samples would be under way at once, and the "
            "controller would learn from none; give --jobs, such as a tenth of --samples"
        )
    return workers


def _run_finals(
    made: Search, number: int, folder: Path, place: Place, carried_out: dict[str, Any]
) -> None:
    """The best so many once more, with other seeds."""
    from experiments.cli.render import GridProgress
    from experiments.executors import dropping_checkpoints, run_cells
    from experiments.grid import await_others
    from experiments.runtime import Runtime
    from experiments.search.candidates import settled
    from experiments.search.finals import finals
    from experiments.search.report import standings

    again = finals(made, standings(made.tried)[:number])

    def unsettled() -> list[Cell]:
        return [cell for cell in again if settled(made.store, cell) is None]

    missing = unsettled()
    if not missing:
        return
    runtime = Runtime(group=made.config.profile, **carried_out)
    workers = place.workers(missing)
    with (
        interruptible(),
        GridProgress(missing) as progress,
        _noted(made, folder, workers, progress),
    ):
        watch = dropping_checkpoints(progress.watch, made.store)
        free = missing
        while free:
            of_run = {cell.run_id: runtime for cell in free}
            run_cells(place.executor, free, made.store, of_run, workers, watch)
            free = await_others(unsettled(), made.store)
    for cell, failure in progress.failures:
        if settled(made.store, cell) is None:
            raise _failed(cell, failure)


def _failed(cell: Cell, failure: Failure) -> UserError:
    return UserError(
        f"{cell.label}: {failure.error}: {failure.message}; failure.json in its folder has the "
        "traceback, the same command tries it again"
    )


def _run_all(
    made: Search,
    place: Place,
    workers: int,
    carried_out: dict[str, Any],
    progress: SearchProgress,
) -> None:
    """Until the search is complete, or a run has failed. A search that was killed may leave a run
    behind that goes on by itself: once nothing else can be done, that is waited for.
    """
    from experiments.executors import dropping_checkpoints
    from experiments.grid import await_others
    from experiments.runtime import Runtime

    runtime = Runtime(group=made.config.profile, **carried_out)
    watch = dropping_checkpoints(progress.watch, made.store)
    while True:
        upcoming = partial(_upcoming, made.cells(), made, progress)
        place.executor.run_as_asked(upcoming, made.store, lambda _: runtime, workers, watch)
        if made.is_complete or _stuck(made, progress):
            return
        await_others(made.unsettled(), made.store)


def _upcoming(
    pending: Iterator[Cell | None], made: Search, progress: SearchProgress
) -> Cell | None:
    """The next run. None once `lag` have failed, beyond which a search with a barrier could not
    get: one without it would draw all its samples, and learn from none.
    """
    return None if len(_stuck(made, progress)) >= made.config.lag else next(pending, None)


def _stuck(made: Search, progress: SearchProgress) -> list[tuple[Cell, Failure]]:
    """Failures without whose runs the search cannot end."""
    if not progress.failures:
        return []
    needed = {cell.run_id for cell in made.unsettled()}
    return [(cell, failure) for cell, failure in progress.failures if cell.run_id in needed]


def _show(found: Findings, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    from experiments.cli.render import console, table
    from experiments.search.report import MOST_ROWS

    config = found.config
    console.print(f"{found.tried} of {config.samples} samples, {len(found.networks)} networks")
    header = ["network", "sample", config.reward, "again", "MACs M", "params M", "levels"]
    rows = [
        [
            f"{one.name}{' *' if one.run_id in found.front else ''}",
            str(one.number),
            f"{one.reward:.1f}",
            f"{found.finals[one.number]:.1f}" if one.number in found.finals else "",
            f"{one.macs_m:.0f}",
            f"{one.params_m:.2f}",
            one.levels,
        ]
        for one in found.networks[:MOST_ROWS]
    ]
    console.print(table(header, rows))
    console.print(
        "* no cheaper network is better. again: mean of two other seeds, for `spinenet search "
        "--finalists`. levels: of the blocks in order.",
        style="dim",
    )
    if found.pace is not None:
        console.print(found.pace.line, highlight=False)


def _best(made: Search, found: Findings) -> Genotype:
    """The best network so far, under the search's name and with its source."""
    from dataclasses import replace

    if found.chosen is None:
        raise UserError(f"{found.name}: no sample has been trained yet; there is no best network")
    config = found.config
    budget = f"{found.tried} samples of {config.controller}, seed {config.seed}"
    if config.macs_m is not None:
        budget += f", of at most {config.macs_m:g} M multiply-adds"
    if found.finals:
        budget += f", the best of {len(found.finals)} finalists by two other seeds"
    source = f"our search in the space {config.space}: {budget}, profile {config.profile}"
    return replace(made.asked[found.chosen.number].genotype, name=found.name, source=source)


def _write_best(best: Genotype, path: Path) -> None:
    from experiments.store import write_atomically

    write_atomically(path, best.to_yaml())
    typer.echo(f"written to {path}", err=True)


def _draw_best(best: Genotype, path: Path) -> None:
    from experiments.cli.render import save_figure
    from spinenet.drawing import draw

    save_figure(draw(best), path)
    typer.echo(f"drawn to {path}", err=True)
