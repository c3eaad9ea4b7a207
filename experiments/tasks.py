"""What differs between detection, detection with masks, and classification: data and module here,
the network in `experiments.networks`.

Everything else (the grid, one run, the store, the tables) goes through these functions and does not
ask which task it has.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from datamodules import ClassificationDataModule, DetectionDataModule
from experiments.module import ClassificationModule, DetectionModule, TaskModule
from experiments.recipe import Recipe
from spinenet.config import ClassifierConfig

DataModule = DetectionDataModule | ClassificationDataModule


def datamodule(recipe: Recipe, num_workers: int = 0, batch_size: int = 0) -> DataModule:
    """The data of a recipe, in the batches that go through the network at once; of `batch_size`
    where that is a process's share of a step's pictures.
    """
    given: dict[str, Any] = {
        "seed": recipe.seed,
        "batch_size": (batch_size or recipe.train.batch_size) // recipe.train.accumulate,
        "eval_batch_size": recipe.eval.batch_size,
        "num_workers": num_workers,
        "on_error": recipe.data.on_error,
    }
    data = recipe.data
    if isinstance(recipe.model, ClassifierConfig):
        return ClassificationDataModule(
            source=data.source,  # type: ignore[arg-type]
            crop=data.transform,  # type: ignore[arg-type]
            label_offset=int(recipe.model.background),
            **given,
        )
    return DetectionDataModule(
        source=data.source,  # type: ignore[arg-type]
        transform=data.transform,  # type: ignore[arg-type]
        masks=recipe.learns_masks,
        **given,
    )


def make_module(network: nn.Module, recipe: Recipe, data: DataModule) -> TaskModule:
    """The LightningModule that trains and validates a recipe's network on its data."""
    if isinstance(data, ClassificationDataModule):
        return ClassificationModule(network, recipe, class_names=data.class_names)
    return DetectionModule(network, recipe, index=data.val_index)
