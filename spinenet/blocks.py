"""Residual and bottleneck blocks, and the groups that a genotype's nodes become.

Both are ResNet v1 blocks with the stride in the 3x3 convolution and the activation after the sum
(tensorflow/tpu: modeling/architecture/nn_blocks.py). A node of the genotype is a group of `repeats`
such blocks.
"""

from __future__ import annotations

from torch import Tensor, nn

from spinenet.genotype import BOTTLENECK, EXPANSION, RESIDUAL
from spinenet.layers import LayerConfig


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C_in, H, W) → (B, width, H / stride, W / stride)."""

    def __init__(
        self,
        layers: LayerConfig,
        *,
        inputs: int,
        width: int,
        stride: int = 1,
        project: bool = False,
    ):
        super().__init__()
        self.conv1, self.norm1 = layers.conv(inputs, width, 3, stride), layers.norm(width)
        self.conv2, self.norm2 = layers.conv(width, width, 3), layers.norm(width)
        self.shortcut = layers.conv_norm(inputs, width, 1, stride) if project else nn.Identity()
        self.act = layers.act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.act(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut: (B, C_in, H, W) → (B, 4 * width, H / stride, W
    / stride).
    """

    def __init__(
        self,
        layers: LayerConfig,
        *,
        inputs: int,
        width: int,
        stride: int = 1,
        project: bool = False,
    ):
        super().__init__()
        outputs = EXPANSION[BOTTLENECK] * width
        self.conv1, self.norm1 = layers.conv(inputs, width, 1), layers.norm(width)
        self.conv2, self.norm2 = layers.conv(width, width, 3, stride), layers.norm(width)
        self.conv3, self.norm3 = layers.conv(width, outputs, 1), layers.norm(outputs)
        self.shortcut = layers.conv_norm(inputs, outputs, 1, stride) if project else nn.Identity()
        self.act = layers.act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        y = self.act(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return self.act(y + self.shortcut(x))


BLOCKS: dict[str, type[Residual | Bottleneck]] = {RESIDUAL: Residual, BOTTLENECK: Bottleneck}


def block_group(
    layers: LayerConfig,
    kind: str,
    *,
    inputs: int,
    width: int,
    repeats: int,
    stride: int = 1,
    project: bool = False,
) -> nn.Sequential:
    """`repeats` blocks in a row; only the first has the stride and the projection (figure 6: block
    repeat).
    """
    outputs = EXPANSION[kind] * width
    first = BLOCKS[kind](layers, inputs=inputs, width=width, stride=stride, project=project)
    rest = (BLOCKS[kind](layers, inputs=outputs, width=width) for _ in range(repeats - 1))
    return nn.Sequential(first, *rest)
