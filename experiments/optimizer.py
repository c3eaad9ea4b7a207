"""Optimiser and learning-rate schedule of a recipe.

The official weight decay is a term of the loss, so its gradient is clipped with the rest, where
PyTorch's SGD adds it after clipping. A recipe that clips therefore has `add_l2` do it before.
AdamW's decay is apart from the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from experiments.recipe import OptimConfig, Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay on convolution kernels only, as in the official
    code.
    """
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    config = recipe.optim
    decay = "l2" if config.clips_l2 else "weight_decay"
    groups = [
        {"params": kernels, "weight_decay": 0.0} | {decay: config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=config.momentum, fused=True)


@torch.no_grad()
def add_l2(optimizer: torch.optim.Optimizer) -> None:
    """Add the gradient of the L2 term to that of each group which `build_optimizer` gave an `l2`:
    that of l2 / 2 times the sum of squares.
    """
    for group in optimizer.param_groups:
        learning = [p for p in group["params"] if p.grad is not None]
        if "l2" in group and learning:
            torch._foreach_add_([p.grad for p in learning], learning, alpha=group["l2"])


def schedule(config: OptimConfig, *, steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
    """Step → factor on the learning rate: linear warm-up, then steps of 0.1 or a cosine to zero."""
    total = steps_per_epoch * epochs
    warmup = config.warmup_epochs * steps_per_epoch
    decays = [(epochs - before) * steps_per_epoch for before in config.decay_before_end]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if config.schedule == "step":
            return float(0.1 ** sum(step >= decay for decay in decays))
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    return factor
