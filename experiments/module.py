"""The LightningModules: a network, its loss, and what validation collects.

A module ends with `final()`: the scores that the result holds, and what it rests on, as files.
Where several processes validate, each takes its share of the pictures, and all of them end with
what all have found, each picture once, also where a sampler deals some out twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch import distributed as dist

from datamodules import CocoIndex
from datamodules.sampling import current_rank
from datamodules.transforms import normalise
from experiments.accuracy import label_ranks, top_k_accuracy
from experiments.errors import UserError
from experiments.optimizer import add_l2, build_optimizer, schedule
from experiments.recipe import Recipe
from experiments.scoring import Scores, score, to_coco
from spinenet.detection.instances import InstanceDetections

if TYPE_CHECKING:
    from experiments.tasks import DataModule

Files = dict[str, Any]
"""File name → content that becomes JSON."""
Part = TypeVar("Part")
NO_ROWS = torch.empty(0, 3, dtype=torch.long)


class NonFiniteLossError(RuntimeError):
    """The loss is no longer a number; the message has its terms."""


def steps_per_epoch(recipe: Recipe, data: DataModule) -> int:
    """Steps of the optimiser, each of a whole batch."""
    steps = data.batches_per_epoch // recipe.train.accumulate
    if not steps and data.batches_per_epoch:
        raise UserError(
            f"train.batch_size: {recipe.train.batch_size} is more than {data.described('train')}; "
            "lower it"
        )
    return steps


class TaskModule(pl.LightningModule, ABC):
    """What all tasks share. `scores` are those of the last validation; `metric` names the first of
    them, in percent.
    """

    metric = ""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = network, recipe
        self.scores: Scores | None = None

    @abstractmethod
    def final(self) -> tuple[Scores, Files]:
        """Scores of what the last validation collected, and the files that they follow from."""

    def log_losses(self, losses: dict[str, Tensor]) -> None:
        """Log the losses of a step, those of the whole batch where processes share it."""
        shared = current_rank()[1] > 1
        self.log_dict({f"loss/{k}": v for k, v in losses.items()}, sync_dist=shared)

    def validated(self, scores: Scores) -> None:
        """Keep and log the scores of an epoch."""
        self.scores = scores
        self.log_dict({f"val/{name}": value for name, value in scores.metrics.items()})

    def on_train_epoch_start(self) -> None:
        """Chance inside the network (stochastic depth, DropBlock, sampled regions) follows from
        (seed, epoch), so that a resumed run draws what the undisturbed one would have; in further
        processes also from their rank, since their pictures are others.
        """
        rank = [place] if (place := current_rank()[0]) else []
        stream = np.random.default_rng((self.recipe.seed, self.current_epoch, *rank))
        torch.manual_seed(int(stream.integers(2**63)))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning calls this at every step, after the processes have shared their gradients. Its
        own clipping refuses fused optimisers under bf16, although no gradient is scaled there.
        """
        add_l2(optimizer)
        if gradient_clip_val:
            learning = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(learning, gradient_clip_val)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.recipe)
        factor = schedule(
            self.recipe.optim,
            steps_per_epoch=self._steps_per_epoch(),
            epochs=self.recipe.train.epochs,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _steps_per_epoch(self) -> int:
        """Of the optimiser. Lightning's own estimate makes the loaders, too early for a run that is
        resumed: they would begin at the first epoch's first batch.
        """
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return int(self.trainer.estimated_stepping_batches) // self.recipe.train.epochs
        return steps_per_epoch(self.recipe, data)


class DetectionModule(TaskModule):
    """Trains and validates a detector, of masks too, on batches of `DetectionDataModule`."""

    metric = "AP"

    def __init__(self, network: nn.Module, recipe: Recipe, *, index: CocoIndex) -> None:
        super().__init__(network, recipe)
        self.index = index
        self.found: dict[int, list[dict[str, Any]]] = {}  # picture's id → rows of COCO's format

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        targets = [batch["boxes"], batch["labels"]]
        if "masks" in batch:
            targets.append(batch["masks"].float() / 255)
        network: Any = self.model
        losses = network.losses(network_input(batch), *targets)
        self.log_losses(losses._asdict())
        return losses.total

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.found |= {int(image_id): [] for image_id in batch["image_id"]}
        for row in detect(self.model, batch, self.index):
            self.found[row["image_id"]].append(row)

    def on_validation_epoch_start(self) -> None:
        self.found = {}

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.found = {k: rows for part in of_all(self.found) for k, rows in part.items()}
            self.validated(score(self.index, self.detections, "hotcoco"))

    @property
    def detections(self) -> list[dict[str, Any]]:
        """What was found, in the data's order of pictures."""
        return [row for record in self.index.images for row in self.found.get(record.id, ())]

    def final(self) -> tuple[Scores, Files]:
        found = score(self.index, self.detections, self.recipe.eval.scorer)
        return found, {"detections.json": self.detections}


class ClassificationModule(TaskModule):
    """Trains and validates a classifier on batches of `ClassificationDataModule`."""

    metric = "top1"

    def __init__(self, network: nn.Module, recipe: Recipe, *, class_names: dict[int, str]) -> None:
        super().__init__(network, recipe)
        self.class_names = class_names
        self.rows: list[Tensor] = []  # (B, 3): sample, label, rank of the label

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        network: Any = self.model
        loss: Tensor = network.loss(network_input(batch), batch["label"])
        self.log_losses({"total": loss})
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.rows.append(rank(self.model, batch))

    def on_validation_epoch_start(self) -> None:
        self.rows = []

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            rows = torch.cat(of_all(torch.cat([NO_ROWS, *self.rows])))
            _, first = np.unique(rows[:, 0], return_index=True)
            self.rows = [rows[first]]
            self.validated(accuracy(self.rows, self.class_names))

    def final(self) -> tuple[Scores, Files]:
        columns = torch.cat(self.rows).T.tolist()
        ranks = dict(zip(("sample", "label", "rank"), columns, strict=True))
        return accuracy(self.rows, self.class_names), {"ranks.json": ranks}


def of_all(mine: Part) -> list[Part]:
    """`mine` of every process, by rank; of one process, just that."""
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return parts


def detect(network: Any, batch: dict[str, Tensor], index: CocoIndex) -> list[dict[str, Any]]:
    """Rows of COCO's result format for a batch, in pixels of the stored pictures."""
    found = network.detect(network_input(batch), batch["valid"])
    masks = found.masks if isinstance(found, InstanceDetections) else None
    return to_coco(found, batch, index.label_to_category, masks)


def rank(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(B, 3) on the host: sample, label, and how many classes outrank the label."""
    logits = network(network_input(batch))
    ranks = label_ranks(logits, batch["label"])
    return torch.stack([batch["image_id"], batch["label"], ranks], dim=1).cpu()


def accuracy(rows: list[Tensor], class_names: dict[int, str]) -> Scores:
    """Top-1 and top-5 accuracy, and top-1 by class, from rows of `rank`."""
    _, labels, ranks = torch.cat(rows).unbind(1)
    by_class = {
        name: top_k_accuracy(ranks[labels == label], (1,))["top1"]
        for label, name in class_names.items()
        if (labels == label).any()
    }
    return Scores(top_k_accuracy(ranks), by_class)


def network_input(batch: dict[str, Tensor]) -> Tensor:
    """(B, 3, S, S) normalised, channels last in memory; detection's pixels become that here, where
    the device does it.
    """
    images = batch["image"]
    if "valid" in batch:
        return normalise(images, batch["valid"])
    return images.contiguous(memory_format=torch.channels_last)
