"""data prepare: the paper's data sets on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from experiments.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    data = typer.Typer(no_args_is_help=True, help="Fetch, unpack and check the paper's data sets.")
    data.command()(prepare)
    app.add_typer(data, name="data")


def prepare(
    name: Annotated[
        Literal["coco", "imagenet", "inaturalist"], typer.Argument(help="Which data set.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where it is, or is to be.")],
    mirror: Annotated[
        str | None,
        typer.Option("--mirror", help="An address, also file://, that has its archives."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a data set where it may be fetched, unpack it, and count what is there.

    What is in place already is left alone; a broken download goes on. Where there is no network, it
    says which archives to put where.

    Example: spinenet data prepare coco data/coco
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from datamodules.prepare import DATA_SETS
    from datamodules.prepare import prepare as prepare_data
    from experiments.cli.render import progress_console

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=progress_console) as bars:
        tasks: dict[str, int] = {}

        def watch(file: str, now: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file)
            bars.update(tasks[file], completed=now, total=total)  # type: ignore[arg-type]

        def say(line: str) -> None:
            bars.console.print(line, highlight=False, markup=False)

        lines = prepare_data(
            DATA_SETS[name], folder.expanduser(), mirror=mirror, say=say, watch=watch
        )
    typer.echo(json.dumps({"folder": str(folder), "found": lines}) if as_json else "\n".join(lines))
