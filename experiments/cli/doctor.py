"""doctor: whether this machine and one's own data are fit to train."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from experiments.cli.options import RUNS, DataOption, JsonOption, RunsOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    data: DataOption = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="The size at which the data are judged.")
    ] = None,
    set_: SetOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Check the machine, and with --data the data: a verdict a line, exit code 1 if one says mend.

    Example: spinenet doctor --data coco:my_folder --profile embedded
    """
    from experiments import doctor as checks

    found = list(checks.checkup(runs))
    if data is not None:
        found += checks.data(data, profile, set_ or [])
    to_mend = [check.name for check in found if check.verdict == "mend"]
    if as_json:
        listed = [asdict(check) for check in found]
        typer.echo(json.dumps({"fit": not to_mend, "checks": listed}, indent=1))
    else:
        typer.echo("\n".join(check.line() for check in found))
        typer.echo(f"to mend: {', '.join(to_mend)}" if to_mend else "fit to train")
    raise typer.Exit(1 if to_mend else 0)
