"""export: weights as a file for other runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(export)


def export(
    weights: Annotated[
        Path, typer.Argument(help="A run's folder, or a weights file written by a run.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")] = Path(
        "model.onnx"
    ),
    side: Annotated[
        int | None, typer.Option("--side", min=1, help="Pixels of the input (default: as trained).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network as ONNX, checked against onnxruntime: a classifier's logits, or class logits
    and box codes per anchor of a RetinaNet.

    Example: spinenet export runs/spinenet-49-coco-s0-1a2b3c4d5e6f -o spinenet49.onnx
    """
    from experiments.export import export_onnx
    from experiments.weights import read_weights

    error = export_onnx(read_weights(weights), output, side)
    size_mb = output.stat().st_size / 1e6
    if as_json:
        facts = {"file": str(output), "relative_error": error, "size_mb": size_mb}
        typer.echo(json.dumps(facts, indent=1))
        return
    typer.echo(f"{output}: {size_mb:.1f} MB, onnxruntime within {error:.0e} of PyTorch")
