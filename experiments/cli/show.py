"""show: an architecture as a table or a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.options import JsonOption

if TYPE_CHECKING:
    from experiments.architecture import Architecture, Row


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(show)


def show(
    model: Annotated[
        str,
        typer.Argument(
            help="A model (spinenet-96), a genotype or its YAML file, or a study's variant as "
            "STUDY:VARIANT or FILE:VARIANT."
        ),
    ],
    other: Annotated[
        str | None, typer.Option("--diff", help="Another one: show only what differs.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw to a file: .svg or .png.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show an architecture: its blocks and what each costs, or drawn as in the paper.

    Example: spinenet show spinenet-49 --diff r0-sp53 -o difference.svg
    """
    from experiments.architecture import describe, find

    one, two = find(model), None if other is None else find(other)
    if output is not None:
        _draw(one, two, output)
    elif two is not None:
        _print_differences(one, two, as_json)
    else:
        _print_table(describe(one), as_json)


def _draw(one: Architecture, two: Architecture | None, path: Path) -> None:
    from experiments.cli.render import save_figure
    from spinenet.drawing import draw, draw_difference

    figure = draw(one.genotype) if two is None else draw_difference(one.genotype, two.genotype)
    save_figure(figure, path)
    typer.echo(f"drawn to {path}")


def _print_table(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    from rich.markup import escape

    from experiments.cli.render import console, table

    rows = facts["rows"]
    first = next(iter(rows[-1]))
    header = [first, "level", "kind", "parents", "out", "channels", "MACs B"]
    if first == "stage":
        header = [first, "level", "blocks", "channels", "MACs B"]
        cells = [[str(row.get(key, "")) for key in header[:-1]] for row in rows]
    else:
        cells = [[str(row["block"]), *_words(row), str(row.get("channels", ""))] for row in rows]
    counted = [[*line, f"{row['macs_b']:.3f}"] for line, row in zip(cells, rows, strict=True)]
    console.print(f"[bold]{escape(facts['name'])}[/] at {facts['side']} pixels", highlight=False)
    console.print(table(header, counted))
    totals = [("backbone", facts["backbone_macs_b"], facts["backbone_params_m"])]
    if "macs_b" in facts:
        totals.append(("RetinaNet", facts["macs_b"], facts["params_m"]))
    for name, macs_b, params_m in totals:
        line = f"{name}: {macs_b:.2f} B multiply-adds, {params_m:.2f} M parameters"
        console.print(line, highlight=False)


def _print_differences(one: Architecture, two: Architecture, as_json: bool) -> None:
    from experiments.architecture import differences

    found = differences(one, two)
    if as_json:
        typer.echo(json.dumps({"models": [one.name, two.name], **found}, indent=1))
        return
    from rich.markup import escape

    from experiments.cli.render import console, table

    console.print(f"[bold]{escape(one.name)}[/] | [bold]{escape(two.name)}[/]", highlight=False)
    for name, (mine, theirs) in found["scaling"].items():
        console.print(f"{name}: {mine} | {theirs}", highlight=False)
    header = ["block", "level", "kind", "parents", "out"]
    rows = [
        [word for row in pair for word in (str(row["block"]) if row else "", *_words(row or {}))]
        for pair in found["blocks"]
    ]
    if rows:
        console.print(table(header * 2, rows))
    else:
        console.print("every block and edge is the same")


def _words(row: Row) -> list[str]:
    """Level, kind, parents and output of a block, each as text."""
    if "level" not in row:
        return [""] * 4
    parents = " ".join([*map(str, row["parents"]), *(f"+{i}" for i in row["orphans"])])
    return [str(row["level"]), row["kind"], parents, f"P{row['level']}" if row["output"] else ""]
