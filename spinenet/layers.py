"""The layers every network here is made of, and the conventions they follow.

Two official code bases differ in how they pad strided convolutions and how they pool, and models
trained with one are not those of the other (`flavor`): tensorflow/tpu (`tf1`) pads symmetrically
and pools once with the whole stride; the TensorFlow Model Garden (`tf2`) pads SAME, which is one-
sided on even maps, and pools by halving. BatchNorm's constants differ too. A `LayerConfig` fixes
all of it and hands out layers.

Shapes: B batch, C channels, H W spatial.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.config import Flavor as Flavor
from spinenet.config import LayerConfig as LayerConfig


class HardSigmoid(nn.Module):
    """relu6(x + 3) times 0.16667, the Model Garden's constant, 2e-5 off a sixth at the top."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) * 0.16667


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "swish": nn.SiLU,
    "hard_swish": nn.Hardswish,
}


class ConvNormAct(nn.Module):
    """(B, C, H, W) → (B, C', H', W'): convolution, norm and, unless None, activation."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, act: nn.Module | None) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self.act = act if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: what does not divide evenly goes to the bottom
    and right.
    """

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[-1], self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(x, (left, right, top, bottom)))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after) of TensorFlow's SAME padding along one side of `size`."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Max-pool with SAME padding: (B, C, H, W) → (B, C, ceil(H / stride), ceil(W / stride)).

    The one-sided remainder is left to `ceil_mode`, which ignores what lies outside, so nothing is
    copied.
    """
    (top, bottom), (left, right) = (same_padding(size, kernel, stride) for size in x.shape[-2:])
    if (bottom > top) != (right > left):  # ceil_mode acts on both sides at once
        x = F.pad(x, (left, right, top, bottom), value=-torch.inf)
        return F.max_pool2d(x, kernel, stride)
    is_one_sided = (bottom, right) != (top, left)  # a bool for symbolic sizes too, unlike `>`
    return F.max_pool2d(x, kernel, stride, padding=(top, left), ceil_mode=is_one_sided)


def init_backbone(module: nn.Module) -> None:
    """Truncated normal of variance 1 / fan-in for every convolution: TensorFlow's default variance
    scaling.

    The official backbones keep this default (tensorflow/tpu: nn_ops.py, conv2d_fixed_padding).
    Norms are left as `LayerConfig` makes them. For a depthwise kernel TensorFlow counts the inputs
    of all channels.
    """
    truncation = 0.87962566103423978  # standard deviation of a unit normal cut at two sigma
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            fan_in = layer.in_channels * layer.weight[0, 0].numel()
            std = fan_in**-0.5 / truncation
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
