"""dashboard: the store as pages, served live or written as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.options import RUNS, SEARCHES, FoldersOption

if TYPE_CHECKING:
    from experiments.dashboard.site import Site


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(dashboard)


def dashboard(
    runs: FoldersOption = None,
    study: Annotated[
        list[str] | None, typer.Option("--study", help="A study's file of your own. Repeatable.")
    ] = None,
    searches: Annotated[
        list[Path] | None, typer.Option("--searches", help="Folder of searches. Repeatable.")
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", help="scores.json of an imported checkpoint. Repeatable."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any.")] = 8377,
    host: Annotated[
        str, typer.Option("--host", help="Other than this machine only, on your own risk.")
    ] = "127.0.0.1",
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the pages as files instead of serving.")
    ] = None,
) -> None:
    """Show runs, studies, searches, models and the ledger in a browser, live while a grid runs.

    Example: spinenet dashboard --runs results/embedded --export pages
    """
    from experiments.dashboard.site import Site
    from experiments.ledger.checkpoints import read_scores

    folders = runs or [RUNS]
    for folder in folders:
        if not folder.is_dir():
            typer.echo(f"{folder}: no such folder yet; its runs will show once there are any")
    site = Site(
        folders,
        study or [],
        searches=searches or [SEARCHES],
        scores=[read_scores(path) for path in scores or []],
        is_live=export is None,
        on_count=_say_counting,
    )
    if export is None:
        site.replay()
        _serve(site, host, port)
        return
    from experiments.dashboard.export import export as write

    count = write(site, export)
    typer.echo(f"{count} files; open {export / 'index.html'}")


def _say_counting(count: int) -> None:
    typer.echo(f"counting {count} networks at the paper's size, once for this version", err=True)


def _serve(site: Site, host: str, port: int) -> None:
    from experiments.dashboard.server import Server

    with Server(site, host, port) as server:
        typer.echo(f"{server.url}  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.closing.set()
