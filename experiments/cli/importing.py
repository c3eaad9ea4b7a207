"""import: an official TensorFlow checkpoint becomes a weights file of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="import")(import_checkpoint)


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(help="A TensorFlow checkpoint: prefix, .index file or folder.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="Its network: spinenet-49, …, or the YAML file of a recipe."
        ),
    ],
    task: Annotated[
        Literal["retinanet", "mask-rcnn", "classifier"],
        typer.Option("--task", help="What it does."),
    ] = "retinanet",
    activation: Annotated[
        Literal["relu", "swish", "hard_swish"] | None,
        typer.Option(
            help="No checkpoint tells. Default: relu for ResNets and Mask R-CNN, swish for other "
            "SpineNets and SpineNet-190: right for the zoos' rows with stochastic depth, while "
            "their plain rows have relu."
        ),
    ] = None,
    bn_epsilon: Annotated[
        float | None, typer.Option(help="Default: the code base's for the task.")
    ] = None,
    bn_momentum: Annotated[
        float | None, typer.Option(help="The new batch's share. Default: likewise.")
    ] = None,
    averages: Annotated[
        bool, typer.Option(help="Take moving averages of the weights where there are any.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: MODEL.safetensors.")
    ] = None,
) -> None:
    """Turn an official TensorFlow checkpoint into weights for `spinenet eval`.

    Example: spinenet import retinanet/spinenet-49-best --model spinenet-49
    """
    from experiments.importing import Said, import_weights

    path = out or Path(f"{Path(model).stem}.safetensors")
    said = Said(activation=activation, bn_epsilon=bn_epsilon, bn_momentum=bn_momentum)
    typer.echo(import_weights(checkpoint, path, model, task, said, averaged=averages))
