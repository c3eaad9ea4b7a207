"""What a finished run shows on W&B beside its figures: a few validation pictures with what is
annotated and what was found, curves of precision over recall, and the network drawn.

The pictures are the same for all runs on the same data, so that runs can be compared side by side.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from datamodules import CocoIndex
from experiments.module import ClassificationModule, DetectionModule, TaskModule
from experiments.recipe import Recipe
from experiments.scoring import precision_curves
from experiments.subprocesses import environment
from experiments.tasks import DataModule
from spinenet.config import SpineNetConfig
from spinenet.genotype import Genotype

PICTURES = 6
MOST_BOXES = 30  # of a picture, the surest
DRAWING_S = 20  # more than a drawing takes; a run that ends before it waits no longer

DRAW = """import sys
from spinenet import genotype
from spinenet.drawing import draw, save
save(draw(genotype.load(sys.argv[1])), sys.argv[2])
"""


class Drawing:
    """The network's picture, drawn by another process while the run trains: it takes a second."""

    def __init__(self, genotype: Genotype, folder: Path) -> None:
        source = folder / "architecture.yaml"
        self.path = folder / "architecture.png"
        source.write_text(genotype.to_yaml())
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRAW, str(source), str(self.path)],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def image(self) -> dict[str, Any]:
        """For the log; empty where it did not come about."""
        import wandb

        try:
            failed = self.process.wait(DRAWING_S) != 0
        except subprocess.TimeoutExpired:
            failed = True
        if failed:
            return {}
        return {"architecture": wandb.Image(str(self.path))}


def start_drawing(recipe: Recipe, folder: Path) -> Drawing | None:
    """Begin to draw the recipe's network; a ResNet has no genotype to draw."""
    backbone = recipe.model.backbone
    return Drawing(backbone.genotype, folder) if isinstance(backbone, SpineNetConfig) else None


def media(module: TaskModule, data: DataModule, drawing: Drawing | None) -> dict[str, Any]:
    """Tables and curves of what the last validation found, and the drawing."""
    drawn = drawing.image() if drawing else {}
    if isinstance(module, DetectionModule):
        return drawn | {"predictions": _boxes(module, data), "precision": _curves(module)}
    if isinstance(module, ClassificationModule):
        return drawn | {"predictions": _ranks(module, data)}
    return drawn


def chosen(count: int) -> list[int]:
    """Up to PICTURES places out of `count`, spread evenly."""
    return [i * count // PICTURES for i in range(PICTURES)] if count > PICTURES else [*range(count)]


def _boxes(module: DetectionModule, data: DataModule) -> Any:
    """A table of pictures under two layers of boxes, which W&B shows and hides."""
    import wandb
    from wandb.data_types import Classes

    index = module.index
    names = {index.label_to_category[label]: name for label, name in index.class_names.items()}
    classes = Classes([{"id": number, "name": name} for number, name in names.items()])
    table = wandb.Table(columns=["image_id", "picture", "annotated", "found"])
    for i in chosen(len(index.images)):
        record = index.images[i]
        best = sorted(module.found.get(record.id, ()), key=lambda row: -row["score"])[:MOST_BOXES]
        layers = {
            "found": [_box(r["category_id"], r["bbox"], names, r["score"]) for r in best],
            "annotated": _annotated(index, i, names),
        }
        picture = wandb.Image(
            _pixels(data.val_set.picture(i)),
            boxes={
                layer: {"box_data": rows, "class_labels": names} for layer, rows in layers.items()
            },
            classes=classes,
        )
        table.add_data(record.id, picture, record.targets, len(best))
    return table


def _annotated(index: CocoIndex, i: int, names: dict[int, str]) -> list[dict[str, Any]]:
    record = index.images[i]
    return [
        _box(index.label_to_category[int(label)], [x1, y1, x2 - x1, y2 - y1], names)
        for (x1, y1, x2, y2), label in zip(record.boxes.tolist(), record.labels, strict=True)
    ]


def _box(
    category: int, bbox: list[float], names: dict[int, str], score: float | None = None
) -> dict[str, Any]:
    """A box (x, y, width, height) in pixels, as W&B wants it."""
    x, y, width, height = bbox
    corners = {"minX": x, "minY": y, "maxX": x + width, "maxY": y + height}
    row: dict[str, Any] = {"position": corners, "domain": "pixel", "class_id": category}
    if score is None:
        return row | {"box_caption": names[category]}
    return row | {"box_caption": f"{names[category]} {score:.2f}", "scores": {"score": score}}


def _curves(module: DetectionModule) -> Any:
    import wandb

    recall, precision = precision_curves(module.index, module.detections)
    return wandb.plot.line_series(
        xs=recall.round(2).tolist(),
        ys=[values.tolist() for values in precision.values()],
        keys=list(precision),
        title="Precision over recall, mean over classes",
        xname="recall",
    )


def _ranks(module: ClassificationModule, data: DataModule) -> Any:
    """A table of pictures with how many classes outrank the right one."""
    import wandb

    rows = {sample: (label, rank) for sample, label, rank in module.rows[0].tolist()}
    table = wandb.Table(columns=["picture", "label", "classes above it"])
    for i in chosen(len(data.val_set)):
        label, rank = rows[i]
        picture = wandb.Image(_pixels(data.val_set.picture(i)))
        table.add_data(picture, module.class_names[label], rank)
    return table


def _pixels(picture: Tensor) -> np.ndarray:
    """uint8 (3, H, W) → (H, W, 3)."""
    return picture.permute(1, 2, 0).numpy()
