"""train, eval: one recipe, one set of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import (
    CHECKPOINT_EVERY,
    RUNS,
    CheckpointOption,
    DataOption,
    DevicesOption,
    JsonOption,
    OtherCodeOption,
    RecomputeOption,
    RunsOption,
    SetOption,
    WandbArtifactsOption,
    WandbOption,
    WeightsOption,
    WorkersOption,
    interruptible,
)
from experiments.durations import parse_duration


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command(name="eval")(evaluate)


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe by name (retinanet) or a YAML file.")
    ] = "retinanet",
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", "-p", help="How big: embedded, smoke, … (default: the recipe's own)."
        ),
    ] = None,
    data: DataOption = None,
    set_: SetOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Order, augmentation, initial weights.")
    ] = None,
    weights: WeightsOption = None,
    runs: RunsOption = RUNS,
    workers: WorkersOption = 0,
    checkpoint_every: CheckpointOption = CHECKPOINT_EVERY,
    devices: DevicesOption = 1,
    recompute: RecomputeOption = False,
    wandb: WandbOption = "auto",
    wandb_artifacts: WandbArtifactsOption = False,
    other_code: OtherCodeOption = "refuse",
    as_json: JsonOption = False,
) -> None:
    """Train one recipe.

    Example: spinenet train retinanet --profile embedded --data coco:my_folder
    """
    from experiments.runtime import Processes, Runtime
    from experiments.single import compose_recipe, train_one

    composed = compose_recipe(
        recipe, profile=profile, data=data, changes=set_ or [], seed=seed, weights=weights
    )
    runtime = Runtime(
        processes=Processes(devices=devices),
        num_workers=workers,
        recompute=recompute,
        weights=weights,
        wandb=wandb,
        wandb_artifacts=wandb_artifacts,
        group="train",
        progress_bar=not as_json,
        other_code=other_code,
        checkpoint_s=parse_duration(checkpoint_every, "--checkpoint-every"),
    )
    with interruptible():
        folder, result = train_one(composed, runs, runtime, lambda line: typer.echo(line, err=True))
    _show(result.metrics, folder, as_json)


def evaluate(
    weights: Annotated[
        Path, typer.Argument(help="A run's folder, or a weights file written by a run.")
    ],
    data: DataOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write detections and scores.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    as_json: JsonOption = False,
) -> None:
    """Evaluate weights on the validation split of their own data, or of --data.

    Example: spinenet eval runs/spinenet-49-coco-s0-1a2b3c4d5e6f --data coco:my_folder
    """
    from experiments.single import evaluate_weights

    metrics, folder = evaluate_weights(weights, data, output, batch_size)
    _show(metrics, folder, as_json)


def _show(metrics: dict[str, float], folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "metrics": metrics}, indent=1))
        return
    from experiments.cli.render import console, table

    console.print(
        table(["metric", "%"], [[name, f"{value:.2f}"] for name, value in metrics.items()])
    )
    console.print(f"in {folder}", highlight=False)
