"""The command line: `spinenet COMMAND`. Each command's handler stays thin; heavy imports happen
inside them.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import cache
from importlib import metadata
from typing import Annotated

import typer

from experiments.errors import UserError, one_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Reproduce SpineNet (CVPR 2020): networks, ablations, claims, measured beside the paper.",
)


PACKAGES = ("spinenet-reproduction", "torch")


def _tell_versions(is_asked: bool) -> None:
    if is_asked:
        typer.echo("\n".join(f"{name} {_version(name)}" for name in PACKAGES))
        raise typer.Exit


def _version(package: str) -> str:
    """Of a package as installed, without importing it: torch takes seconds."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is not installed"


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_versions, help="Print versions and exit."
        ),
    ] = False,
) -> None:
    """Options before any command."""


def main() -> None:
    """Run the command line; a user's mistake is one line, not a traceback."""
    # Libraries make objects by the hundred thousand and keep them: looking through them for garbage
    # as often as Python does takes a sixth of a short command.
    gc.set_threshold(100_000, 20, 20)
    try:
        application()()
    except Exception as error:
        if (said := line_of(error)) is None or os.environ.get("SPINENET_TRACEBACK"):
            raise
        _fail(said)


@cache
def application() -> typer.Typer:
    """The application with all its commands."""
    from experiments.cli import (
        bench,
        compare,
        dashboard,
        data,
        doctor,
        export,
        grid,
        importing,
        inspect,
        ledger,
        plan,
        predict,
        run,
        runs,
        search,
        search_evidence,
        show,
        wandb,
    )

    made = (grid, plan, ledger, compare, dashboard, inspect, show, search, search_evidence)
    used = (run, runs, predict, export, importing, data, doctor, bench, wandb)
    for module in (*made, *used):
        module.register(app)
    return app


def line_of(error: Exception) -> str | None:
    """The line for a mistake of the user's or a fault of the machine; None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    from datamodules import DataError
    from experiments.faults import is_out_of_memory, of_storage
    from experiments.leases import LeaseLostError
    from experiments.module import NonFiniteLossError
    from spinenet.checkpoints.errors import CheckpointError
    from spinenet.genotype import GenotypeError

    told = DataError | GenotypeError | CheckpointError | NonFiniteLossError | LeaseLostError
    if isinstance(error, told):
        return str(error)
    if is_out_of_memory(error):
        return "out of memory; free some, or do less at once (--batch-size, --jobs)"
    if found := of_storage(error):
        return str(found)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _fail(message: str) -> None:
    print(f"error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(2)
