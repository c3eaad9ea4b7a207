"""compare: two runs or two studies side by side."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from experiments.cli.options import RUNS, JsonOption, RunsOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(compare)


def compare(
    a: Annotated[str, typer.Argument(help="A run's folder or id, or STUDY or STUDY@PROFILE.")],
    b: Annotated[str, typer.Argument(help="Another of the same kind.")],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Show what two runs or two studies differ in, and what came of it.

    Example: spinenet compare ladder@embedded ladder@embedded-long
    """
    from experiments.comparing import compare as compared

    found = compared(a, b, runs)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    from experiments.cli.render import console, table
    from experiments.tables import with_interval

    console.print(f"A: [bold]{found.a}[/]\nB: [bold]{found.b}[/]\n", highlight=False)
    rows = [
        [
            line.name,
            "" if line.a is None else with_interval(line.a),
            "" if line.b is None else with_interval(line.b),
            "" if line.gain is None else _signed(line.gain),
        ]
        for line in found.lines
    ]
    console.print(table(["", "A", "B", "B - A"], rows))
    console.print("\nRecipes differ in:" if found.recipe else "\nThe recipes are the same.")
    for key, (mine, theirs) in found.recipe.items():
        console.print(f"  {key}: {mine} → {theirs}", highlight=False, markup=False)


def _signed(gain: Any) -> str:
    from experiments.tables import with_interval

    shown = with_interval(gain)
    return shown if shown.startswith("-") else f"+{shown}"
