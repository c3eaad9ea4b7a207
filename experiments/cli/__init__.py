"""The command line: `spinenet COMMAND`. Each command's handler stays thin; heavy imports happen
inside them.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import cache

import typer

from experiments.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Reproduce SpineNet (CVPR 2020): networks, ablations, claims, measured beside the paper.",
)


def main() -> None:
    """Run the command line; a user's mistake is one line, not a traceback."""
    # Libraries make objects by the hundred thousand and keep them: looking through them for garbage
    # as often as Python does takes a sixth of a short command.
    gc.set_threshold(100_000, 20, 20)
    try:
        application()()
    except UserError as error:
        _fail(str(error))
    except Exception as error:
        if not _is_user_error(error) or os.environ.get("SPINENET_TRACEBACK"):
            raise
        _fail(str(error))


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


def _is_user_error(error: Exception) -> bool:
    from datamodules import DataError
    from experiments.module import NonFiniteLossError
    from spinenet.genotype import GenotypeError

    return isinstance(error, DataError | GenotypeError | NonFiniteLossError)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
