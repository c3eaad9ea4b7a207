"""compare: two runs or two studies side by side."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.options import RUNS, FoldersOption, JsonOption, tell_missing

if TYPE_CHECKING:
    from experiments.comparing import Comparison, Line


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(compare)


def compare(
    a: Annotated[str, typer.Argument(help="A run by folder or id, or STUDY or STUDY@PROFILE.")],
    b: Annotated[str, typer.Argument(help="Another of the same kind.")],
    runs: FoldersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what two runs or two studies differ in, and what came of it.

    Example: spinenet compare ladder@embedded ladder@embedded-long --runs results/embedded
    --runs results/embedded-long
    """
    from experiments.comparing import compare as compared

    folders = runs or [RUNS]
    tell_missing(*folders)
    found = compared(a, b, folders)
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
    if any(_is_of_fewer(line) for line in found.lines):
        console.print("B - A is over the seeds that both have.", style="dim")
    for side, variants in (("A", found.only_a), ("B", found.only_b)):
        if variants:
            console.print(f"\nOnly {side} has runs of: {', '.join(variants)}", highlight=False)
    for line_of_recipes in _recipes(found):
        console.print(line_of_recipes, highlight=False, markup=False)


def _is_of_fewer(line: Line) -> bool:
    if line.gain is None:
        return False
    return any(side is not None and line.gain.count < side.count for side in (line.a, line.b))


def _recipes(found: Comparison) -> list[str]:
    """What the recipes differ in; that they are the same is said of all variants or not at all."""
    if found.recipe:
        shown = [f"  {key}: {mine} → {theirs}" for key, (mine, theirs) in found.recipe.items()]
        return ["\nRecipes differ in:", *shown]
    return [] if found.only_a or found.only_b else ["\nThe recipes are the same."]


def _signed(gain: Any) -> str:
    from experiments.tables import with_interval

    shown = with_interval(gain)
    return shown if shown.startswith("-") else f"+{shown}"
