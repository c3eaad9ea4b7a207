"""RetinaNet's head as SpineNet uses it: convolutions shared over levels, norms of each level's own.

Class and box subnets are `convs` 3x3 convolutions with bias, each followed by the norm of the level
at hand and the activation; one more 3x3 convolution predicts (tensorflow/tpu:
modeling/architecture/heads.py, RetinanetHead). The mobile networks have separable convolutions
throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from spinenet.config import LayerConfig
from spinenet.detection.config import HeadConfig

PRIOR = 0.01  # every class's initial probability, as in the focal loss paper


class Subnet(nn.Module):
    """One subnet.

    forward: {level: (B, inputs, H, W)} → (B, A, outputs), the anchors of all levels in a row.
    """

    def __init__(
        self,
        config: HeadConfig,
        layers: LayerConfig,
        *,
        inputs: int,
        outputs: int,
        anchors: int,
        levels: Iterable[int],
        bias: float,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        widths = [inputs] + [config.filters] * config.convs
        conv = SeparableConv if config.separable else partial(layers.conv, kernel=3, bias=True)
        convs = [conv(a, b) for a, b in pairwise(widths)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleDict(
            {
                str(level): nn.ModuleList(layers.norm(config.filters) for _ in self.convs)
                for level in levels
            }
        )
        self.act = layers.act()
        self.predict = conv(widths[-1], anchors * outputs)
        for layer in convs:
            _init(layer, std=0.01, bias=0.0)
        _init(self.predict, std=1e-5, bias=bias)

    def forward(self, features: dict[int, Tensor]) -> Tensor:
        return torch.cat([self._level(x, str(level)) for level, x in features.items()], dim=1)

    def _level(self, x: Tensor, level: str) -> Tensor:
        norms = cast(nn.ModuleList, self.norms[level])
        for conv, norm in zip(self.convs, norms, strict=True):
            x = self.act(norm(conv(x)))
        cells = self.predict(x).permute(0, 2, 3, 1)  # (B, H, W, anchors * outputs)
        return cells.unflatten(3, (-1, self.outputs)).flatten(1, 3)


class SeparableConv(nn.Module):
    """3x3 over each channel, then 1x1 with a bias: (B, C, H, W) → (B, C', H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def _init(layer: nn.Conv2d | SeparableConv, *, std: float, bias: float) -> None:
    """Normal weights; for a separable convolution Glorot's, TensorFlow's default."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, std=std)
        nn.init.constant_(cast(Tensor, layer.bias), bias)
        return
    # TensorFlow takes a depthwise kernel (3, 3, C, 1) to have 9 C inputs and 9 outputs.
    limit = math.sqrt(6 / (9 * layer.depthwise.in_channels + 9))
    nn.init.uniform_(layer.depthwise.weight, -limit, limit)
    nn.init.xavier_uniform_(layer.pointwise.weight)
    nn.init.constant_(cast(Tensor, layer.pointwise.bias), bias)


class RetinaNetHead(nn.Module):
    """Both subnets.

    forward: {level: (B, inputs, H, W)} → logits (B, A, num_classes) and box codes (B, A, 4). Class
    0 is background.
    """

    def __init__(
        self,
        config: HeadConfig,
        layers: LayerConfig,
        *,
        channels: dict[int, int],
        num_classes: int,
        anchors: int,
    ) -> None:
        super().__init__()
        (inputs,) = set(channels.values())
        shared = {"inputs": inputs, "anchors": anchors, "levels": list(channels)}
        prior = -math.log((1 - PRIOR) / PRIOR)
        self.classes = Subnet(config, layers, outputs=num_classes, bias=prior, **shared)  # type: ignore[arg-type]
        self.boxes = Subnet(config, layers, outputs=4, bias=0.0, **shared)  # type: ignore[arg-type]

    def forward(self, features: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        return self.classes(features), self.boxes(features)
