"""RetinaNet's head as SpineNet uses it: convolutions shared over levels, norms of each level's own.

Class and box subnets are `convs` 3x3 convolutions with bias, each followed by the norm of the level
at hand and the activation; one more 3x3 convolution predicts (tensorflow/tpu:
modeling/architecture/heads.py, RetinanetHead).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from spinenet.layers import LayerConfig

PRIOR = 0.01  # every class's initial probability, as in the focal loss paper


@dataclass(frozen=True)
class HeadConfig:
    """Depth and width of both subnets."""

    convs: int = 4
    filters: int = 256

    def __post_init__(self) -> None:
        if self.convs < 0 or self.filters < 1:
            raise ValueError(f"convs {self.convs} and filters {self.filters} must be positive")


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
        self.convs = nn.ModuleList(layers.conv(a, b, 3, bias=True) for a, b in pairwise(widths))
        self.norms = nn.ModuleDict(
            {
                str(level): nn.ModuleList(layers.norm(config.filters) for _ in self.convs)
                for level in levels
            }
        )
        self.act = layers.act()
        self.predict = layers.conv(widths[-1], anchors * outputs, 3, bias=True)
        for conv in self.convs:
            nn.init.normal_(conv.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predict.weight, std=1e-5)
        nn.init.constant_(self.predict.bias, bias)  # type: ignore[arg-type]

    def forward(self, features: dict[int, Tensor]) -> Tensor:
        return torch.cat([self._level(x, str(level)) for level, x in features.items()], dim=1)

    def _level(self, x: Tensor, level: str) -> Tensor:
        norms = cast(nn.ModuleList, self.norms[level])
        for conv, norm in zip(self.convs, norms, strict=True):
            x = self.act(norm(conv(x)))
        return self.predict(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.outputs)


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
