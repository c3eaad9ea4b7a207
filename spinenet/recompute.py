"""Activation checkpointing: keep only the input of each block, and run the block again on the way
back.

A step then takes about a third longer and most of its memory is free for a larger batch or picture.
The result is the same to the bit: what chance there is in a block is drawn again alike, and norms
take their running statistics from the first run only. It goes with `torch.compile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from spinenet.backbone import SpineNet
from spinenet.resnet import ResNet, ResNetFPN


def recompute_blocks(backbone: nn.Module, *, enable: bool = True) -> int:
    """Make each block of a backbone recompute its activations in the backward pass, or without
    `enable` keep them again; how many blocks there are.

    Raises TypeError for a backbone that is none of this package's.
    """
    found = list(_blocks(backbone))
    for block in found:
        block.__dict__.pop("forward", None)  # of an earlier call
        if enable:
            block.forward = partial(_recomputed, block, block.forward)
    return len(found)


def _blocks(backbone: nn.Module) -> Iterator[nn.Module]:
    if isinstance(backbone, SpineNet):
        for group in backbone.blocks.values():
            yield from group.children()
    elif isinstance(backbone, ResNet | ResNetFPN):
        for name, stage in backbone.body.named_children():
            if name.startswith("layer"):
                yield from stage.children()
    else:
        raise TypeError(
            f"{type(backbone).__name__} is no backbone of this package; give a SpineNet, ResNet or "
            "ResNetFPN"
        )


def _recomputed(block: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # a graph takes no contexts, and updates statistics once
        return checkpoint(run, x, use_reentrant=False)
    contexts = partial(_first_and_second_run, block)
    return checkpoint(run, x, use_reentrant=False, context_fn=contexts)


def _first_and_second_run(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _keeping_statistics(block)


@contextmanager
def _keeping_statistics(block: nn.Module) -> Iterator[None]:
    """Norms in training normalise by their batch and leave their running statistics alone."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
