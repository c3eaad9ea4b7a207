"""A small network on a GPU as CUDA graphs: its hundreds of kernels are started as one.

At 128 pixels a kernel takes microseconds and starting it from Python takes longer, so the GPU waits
for the processor. What has one shape at every step, forward and backward, is recorded once and
replayed; losses, optimiser and validation stay as they are. The kernels are the same ones, so the
recipe knows nothing of it.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.module import network_input
from experiments.networks import part_of_one_shape
from experiments.recipe import Recipe
from experiments.runtime import Runtime

# Pixels of a batch up to which the processor is what a step waits for: 16 pictures of 256 x 256.
MOST_PIXELS = 2**20


def pays(recipe: Recipe, runtime: Runtime) -> bool:
    """Whether a run's network is to be captured. A replay has no part for chance, for shared
    gradients, or for gradients added up over parts of a batch, which all lie in the same memory.
    """
    layers, train = recipe.model.layers, recipe.train
    pixels = train.batch_size * recipe.data.transform.side**2
    return (
        runtime.accelerator == "gpu"
        and runtime.processes.count == 1
        and not (layers.stochastic_depth or layers.drop_block)
        and not (train.compile or runtime.recompute)
        and train.accumulate == 1
        and pixels <= MOST_PIXELS
    )


class Captured(Callback):
    """Captures the network at the first step, and again when norms freeze. It stands after what
    freezes them in the list of callbacks.
    """

    def __init__(self) -> None:
        self.norms_learn: list[bool] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        part = part_of_one_shape(pl_module.model)  # type: ignore[arg-type]
        learn = [norm.training for norm in part.modules() if isinstance(norm, _BatchNorm)]
        if learn != self.norms_learn:
            self.norms_learn = learn
            with trainer.precision_plugin.train_step_context():
                capture(part, network_input(batch))


def capture(part: nn.Module, images: Tensor) -> None:
    """Replay `part`'s forward and backward from now on wherever it is training, on images of this
    shape. Its weights and statistics stay what they are.
    """
    part.__dict__.pop("forward", None)  # that of an earlier capture
    statistics = [buffer.clone() for buffer in part.buffers()]
    is_cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # weights are cast anew in each replay
    try:
        torch.cuda.make_graphed_callables(part, (torch.zeros_like(images),))
    finally:
        torch.set_autocast_cache_enabled(is_cached)
    for buffer, before in zip(part.buffers(), statistics, strict=True):
        buffer.copy_(before)
