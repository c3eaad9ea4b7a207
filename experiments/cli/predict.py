"""predict: weights applied to pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.options import JsonOption

if TYPE_CHECKING:
    from experiments.classify import Guess
    from experiments.predict import Found


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(predict)


def predict(
    weights: Annotated[
        Path, typer.Argument(help="A run's folder, or a weights file written by a run.")
    ],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures: PNG, JPEG, ….")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write the drawings and what is found.")
    ] = Path("predictions"),
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0,
            max=1,
            help="The least score that is shown (default: 0.3 of objects, 0 of classes).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Detect objects in pictures, or classify the pictures; draw and write what is found.

    A detector writes detections.json; a classifier the five most probable classes of each picture,
    classes.json and classes.csv.

    Example: spinenet predict runs/spinenet-49-coco-s0-1a2b3c4d5e6f holiday/*.jpg -o found
    """
    from experiments.classify import classify
    from experiments.predict import predict as detect
    from experiments.weights import read_weights

    given = read_weights(weights)
    classifies = given.recipe.model.kind == "classifier"
    rows: list[tuple[Path, Sequence[Found | Guess]]]
    if classifies:
        rows = [*classify(given, pictures, output, threshold or 0.0)]
    else:
        rows = [*detect(given, pictures, output, 0.3 if threshold is None else threshold)]
    if as_json:
        listed = {str(path): [one.row() for one in found] for path, found in rows}
        typer.echo(json.dumps(listed, indent=1))
        return
    from rich.markup import escape

    from experiments.cli.render import console, table

    shown = []
    for path, found in rows:
        surest = str(found[0]) if found else ""
        shown.append([escape(path.name), str(len(found)), escape(surest)])
    console.print(table(["picture", "classes" if classifies else "objects", "surest"], shown))
    console.print(f"in {escape(str(output))}", highlight=False)
