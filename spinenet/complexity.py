"""Multiply-adds and parameters of a network, per module, without running it.

The paper's "FLOPs" are multiply-adds of the network with its official head, in units of 1e9. They
are counted by PyTorch's own operator counter on meta tensors, so that no memory is touched and any
size takes a second.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def _unchanged(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Complexity:
    """Counts of one network for one picture: multiply-adds in 1e9, trainable parameters in 1e6, and
    per module.
    """

    macs_b: float
    params_m: float
    macs_b_by_module: dict[str, float]


def complexity(model: nn.Module, side: int | tuple[int, int]) -> Complexity:
    """Count `model` on one picture of `side` pixels (square, or height and width)."""
    height, width = (side, side) if isinstance(side, int) else side
    twin = copy.deepcopy(model).to("meta").eval()
    for norm in (m for m in twin.modules() if isinstance(m, nn.BatchNorm2d)):
        # It adds nothing to the count, and on meta tensors takes most of the time.
        norm.forward = _unchanged  # type: ignore[method-assign, assignment]
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        twin(torch.empty(1, 3, height, width, device="meta"))
    by_module = {
        name.partition(".")[2]: sum(counts.values()) / 2e9
        for name, counts in counter.get_flop_counts().items()
        if "." in name
    }
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Complexity(counter.get_total_flops() / 2e9, params / 1e6, by_module)
