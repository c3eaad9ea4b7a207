"""The LightningModule: a detector, its loss, and what validation collects."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import CocoIndex
from experiments.optimizer import build_optimizer, schedule
from experiments.recipe import Recipe
from experiments.scoring import Backend, Scores, score, to_coco
from spinenet.detection.retinanet import RetinaNet


class NonFiniteLossError(RuntimeError):
    """The loss is no longer a number; the message has its terms."""


class DetectionModule(pl.LightningModule):
    """Trains and validates a detector on batches of `DetectionDataModule`."""

    def __init__(self, *, model: RetinaNet, recipe: Recipe, index: CocoIndex) -> None:
        super().__init__()
        self.model, self.recipe, self.index = model, recipe, index
        self.detections: list[dict[str, Any]] = []
        self.scores: Scores | None = None
        self.backend: Backend = "hotcoco"

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        losses = self.model.losses(_channels_last(batch["image"]), batch["boxes"], batch["labels"])
        self.log_dict({f"loss/{name}": value for name, value in losses._asdict().items()})
        return losses.total

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        found = self.model.detect(_channels_last(batch["image"]), batch["valid"])
        self.detections += to_coco(found, batch, self.index.label_to_category)

    def on_validation_epoch_start(self) -> None:
        self.detections = []

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        self.scores = score(self.index, self.detections, self.backend)
        self.log_dict({f"val/{name}": value for name, value in self.scores.metrics.items()})

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.recipe)
        steps = self.trainer.estimated_stepping_batches // self.recipe.train.epochs
        factor = schedule(
            self.recipe.optim, steps_per_epoch=int(steps), epochs=self.recipe.train.epochs
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
