"""How several maps of one shape become one: the paper's sum, or concatenation and a convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spinenet.config import Fusion, LayerConfig


class Add(nn.Module):
    """[(B, C, H, W), …] → (B, C, H, W): the sum, in the order given."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return sum(maps[1:], maps[0])


class Concat(nn.Module):
    """[(B, C, H, W), …] → (B, C, H, W): concatenated, 1x1 convolution, norm, no activation."""

    def __init__(self, layers: LayerConfig, *, channels: int, inputs: int) -> None:
        super().__init__()
        self.mix = layers.conv_norm(inputs * channels, channels, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.mix(torch.cat(maps, dim=1))


def fusion(kind: Fusion, layers: LayerConfig, *, channels: int, inputs: int) -> Add | Concat:
    """The module that fuses `inputs` maps of `channels`; one map alone passes as it is."""
    if kind == "add" or inputs == 1:
        return Add()
    return Concat(layers, channels=channels, inputs=inputs)
