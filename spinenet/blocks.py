"""Residual, bottleneck and MBConv blocks, and the groups that a genotype's nodes become.

The first two are ResNet v1 blocks with the stride in the 3x3 convolution and the activation after
the sum; MBConv is the mobile networks' inverted bottleneck with squeeze-and-excitation and no
activation at its end (tensorflow/tpu: modeling/architecture/nn_blocks.py). A node of the genotype
is a group of `repeats` such blocks. Stochastic depth acts on the branch, DropBlock after every norm
and on the shortcut.

Shapes: B batch, C channels, H W spatial.
"""

from __future__ import annotations

from torch import Tensor, nn

from spinenet.config import LayerConfig
from spinenet.genotype import BOTTLENECK, EXPANSION, MBCONV, RESIDUAL
from spinenet.layers import HardSigmoid

MBCONV_EXPANSION = 6
SQUEEZE = 0.2  # of the channels before the expansion


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C_in, H, W) → (B, width, ceil(H / stride),
    ceil(W / stride)).
    """

    def __init__(
        self,
        layers: LayerConfig,
        *,
        inputs: int,
        width: int,
        stride: int = 1,
        project: bool = False,
        drop_rate: float = 0.0,
    ):
        super().__init__()
        self.conv1, self.norm1 = layers.conv(inputs, width, 3, stride), layers.norm(width)
        self.conv2, self.norm2 = layers.conv(width, width, 3), layers.last_norm(width)
        self.shortcut = layers.conv_norm(inputs, width, 1, stride) if project else nn.Identity()
        self.act, self.drop = layers.act(), layers.drop_cells()
        self.drop_branch = layers.drop_branch(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.act(self.norm1(self.conv1(x))))
        y = self.drop(self.norm2(self.conv2(y)))
        return self.act(self.drop_branch(y) + self.drop(self.shortcut(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut: (B, C_in, H, W) → (B, 4 * width,
    ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        layers: LayerConfig,
        *,
        inputs: int,
        width: int,
        stride: int = 1,
        project: bool = False,
        drop_rate: float = 0.0,
    ):
        super().__init__()
        outputs = EXPANSION[BOTTLENECK] * width
        self.conv1, self.norm1 = layers.conv(inputs, width, 1), layers.norm(width)
        self.conv2, self.norm2 = layers.conv(width, width, 3, stride), layers.norm(width)
        self.conv3, self.norm3 = layers.conv(width, outputs, 1), layers.last_norm(outputs)
        self.shortcut = layers.conv_norm(inputs, outputs, 1, stride) if project else nn.Identity()
        self.act, self.drop = layers.act(), layers.drop_cells()
        self.drop_branch = layers.drop_branch(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.act(self.norm1(self.conv1(x))))
        y = self.drop(self.act(self.norm2(self.conv2(y))))
        y = self.drop(self.norm3(self.conv3(y)))
        return self.act(self.drop_branch(y) + self.drop(self.shortcut(x)))


class MBConv(nn.Module):
    """Expansion, depthwise 3x3, squeeze-and-excitation, projection: (B, C_in, H, W) → (B, width,
    ceil(H / stride), ceil(W / stride)).

    The shortcut is there only where the shape stays; `project` has no meaning here.
    """

    def __init__(
        self,
        layers: LayerConfig,
        *,
        inputs: int,
        width: int,
        stride: int = 1,
        project: bool = False,
        drop_rate: float = 0.0,
    ):
        super().__init__()
        expanded = MBCONV_EXPANSION * inputs
        self.expand = layers.conv_norm_act(inputs, expanded, 1)
        self.depthwise = layers.depthwise_norm_act(expanded, 3, stride)
        self.excite = SqueezeExcitation(layers, channels=expanded, squeezed=int(inputs * SQUEEZE))
        self.project = layers.conv_norm(expanded, width, 1)
        self.keeps_shape = inputs == width and stride == 1
        self.drop, self.drop_branch = layers.drop_cells(), layers.drop_branch(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.depthwise(self.drop(self.expand(x))))
        y = self.drop(self.project(self.excite(y)))
        return self.drop_branch(y) + x if self.keeps_shape else y


class SqueezeExcitation(nn.Module):
    """Channels weighed by a function of their means: (B, C, H, W) → (B, C, H, W).

    tensorflow/tpu has swish inside and a sigmoid gate, the Model Garden ReLU and a hard sigmoid.
    """

    def __init__(self, layers: LayerConfig, *, channels: int, squeezed: int) -> None:
        super().__init__()
        is_tf1, squeezed = layers.flavor == "tf1", max(1, squeezed)
        self.reduce = layers.conv(channels, squeezed, 1, bias=True)
        self.act = nn.SiLU() if is_tf1 else nn.ReLU()
        self.expand = layers.conv(squeezed, channels, 1, bias=True)
        self.gate = nn.Sigmoid() if is_tf1 else HardSigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.reduce(x.mean(dim=(2, 3), keepdim=True)))
        return x * self.gate(self.expand(y))


BLOCKS: dict[str, type[Residual | Bottleneck | MBConv]] = {
    RESIDUAL: Residual,
    BOTTLENECK: Bottleneck,
    MBCONV: MBConv,
}


def block_group(
    layers: LayerConfig,
    kind: str,
    *,
    inputs: int,
    width: int,
    repeats: int,
    stride: int = 1,
    project: bool = False,
    drop_rate: float = 0.0,
) -> nn.Sequential:
    """`repeats` blocks in a row, all with one `drop_rate`; only the first has the stride and the
    projection (figure 6: block repeat).
    """
    block, outputs = BLOCKS[kind], EXPANSION[kind] * width
    first = block(
        layers, inputs=inputs, width=width, stride=stride, project=project, drop_rate=drop_rate
    )
    rest = (
        block(layers, inputs=outputs, width=width, drop_rate=drop_rate) for _ in range(repeats - 1)
    )
    return nn.Sequential(first, *rest)
