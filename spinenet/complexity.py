"""Multiply-adds and parameters of a network, per module, without running it.

The paper's "FLOPs" are multiply-adds of the network with its official head, in units of 1e9: those
of convolutions and linear layers, which is all that these networks multiply by weights. They follow
from the layers' output shapes on meta tensors, so that no memory is touched and any size takes a
moment. PyTorch's own operator counter agrees to the last digit and takes several times as long; a
test holds the two together.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from spinenet.counts import Complexity
from spinenet.layers import ACTIVATIONS

INITIALISERS = {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_}  # what `init` ends in
SHAPE_KEEPING: tuple[type[nn.Module], ...] = (_BatchNorm, *ACTIVATIONS.values())


def complexity(model: nn.Module, side: int | tuple[int, int], *, channels: int = 3) -> Complexity:
    """Count `model` on one picture of `side` pixels (square, or height and width) and `channels`.

    A network built on the meta device is counted as it is, any other through a copy.
    """
    height, width = (side, side) if isinstance(side, int) else side
    on_meta = all(p.is_meta for p in model.parameters())
    twin = model if on_meta else copy.deepcopy(model).to("meta")
    on_the_way = torch.device("meta")  # what the network makes there, such as anchors
    with _evaluating_shapes_only(twin), _counting(twin) as macs, torch.no_grad(), on_the_way:
        twin(torch.empty(1, channels, height, width))
    by_module: dict[str, float] = defaultdict(float)
    for name, count in macs.items():
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            by_module[".".join(parts[:depth])] += count / 1e9
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Complexity(sum(macs.values()) / 1e9, params / 1e6, dict(by_module))


@contextmanager
def without_values() -> Iterator[None]:
    """Networks built inside have shapes only: they are on the meta device, and nothing is drawn for
    their weights.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Initialisers leave their tensor as it is. On meta tensors they do nothing, but slowly."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in INITIALISERS:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def _counting(model: nn.Module) -> Iterator[dict[str, int]]:
    """Multiply-adds by layer, filled while the model runs; a layer used twice counts twice."""
    macs: dict[str, int] = defaultdict(int)

    def count(name: str, layer: Any, given: Tensor, out: Tensor) -> None:
        # A transposed convolution reads each input once per weight, the others write each output.
        cells = given.numel() if isinstance(layer, nn.ConvTranspose2d) else out.numel()
        macs[name] += cells * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(
            lambda layer, given, out, name=name: count(name, layer, given[0], out)
        )
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    try:
        yield macs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _evaluating_shapes_only(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in which norms and activations pass their input on: they add nothing, and on
    meta tensors take longest.
    """
    before = [(m, m.training) for m in model.modules()]
    idle: list[Any] = [m for m in model.modules() if isinstance(m, SHAPE_KEEPING)]
    for module in idle:
        module.forward = _unchanged
    try:
        model.train(False)
        yield
    finally:
        for module in idle:
            del module.forward
        for module, was_training in before:
            module.training = was_training


def _unchanged(x: Tensor) -> Tensor:
    return x
