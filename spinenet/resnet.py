"""ResNet-FPN, the paper's baseline: timm's ResNet under the official feature pyramid.

FPN as in tensorflow/tpu: modeling/architecture/fpn.py. Laterals and post-hoc convolutions have
biases and no norm; P6 is a stride-2 convolution of P5, P7 one of relu(P6); one norm without
activation closes every level. timm's ResNet already has the stride in the 3x3 convolution and, like
SpineNet here, a stem of 64 filters at any width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.layers import LayerConfig, SameConv2d, init_backbone, max_pool_same

Depth = Literal[50, 101, 152]
STAGE_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class ResNetFPNConfig:
    """A ResNet of `depth` layers, inner widths times `width`, with an FPN of `endpoint_filters`
    channels.
    """

    kind: Literal["resnet-fpn"] = "resnet-fpn"
    depth: Depth = 50
    width: float = 1.0
    endpoint_filters: int = 256

    def __post_init__(self) -> None:
        if self.depth not in (50, 101, 152):
            raise ValueError(f"depth {self.depth} is unknown; known: 50, 101, 152")
        if int(STAGE_WIDTHS[0] * self.width) < 1:
            raise ValueError(f"width {self.width} leaves a layer without channels; raise it")


class ResNetFPN(nn.Module):
    """ResNet and FPN.

    forward: (B, 3, H, W) → {level: (B, endpoint_filters, ceil(H / 2**level), ceil(W / 2**level))},
    levels 3..7.
    """

    def __init__(self, config: ResNetFPNConfig, layers: LayerConfig) -> None:
        super().__init__()
        self.body = _timm_resnet(config, layers)
        self.fpn = FPN(
            layers, inputs=self.body.feature_info.channels(), filters=config.endpoint_filters
        )
        self.channels = dict.fromkeys(range(3, 8), config.endpoint_filters)
        init_backbone(self)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        return self.fpn(self.body(images))


class FPN(nn.Module):
    """Feature pyramid over C3, C4, C5.

    forward: [C3, C4, C5], each (B, inputs[i], H_i, W_i) → {3: P3, …, 7: P7} of `filters` channels.
    """

    def __init__(self, layers: LayerConfig, *, inputs: list[int], filters: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(layers.conv(c, filters, 1, bias=True) for c in inputs)
        self.posthocs = nn.ModuleList(layers.conv(filters, filters, 3, bias=True) for _ in inputs)
        self.p6 = layers.conv(filters, filters, 3, stride=2, bias=True)
        self.p7 = layers.conv(filters, filters, 3, stride=2, bias=True)
        self.norms = nn.ModuleList(layers.norm(filters) for _ in range(len(inputs) + 2))

    def forward(self, features: list[Tensor]) -> dict[int, Tensor]:
        merged = [lateral(c) for lateral, c in zip(self.laterals, features, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + F.interpolate(
                merged[i + 1], size=merged[i].shape[-2:], mode="nearest"
            )
        pyramid = [posthoc(m) for posthoc, m in zip(self.posthocs, merged, strict=True)]
        pyramid.append(self.p6(pyramid[-1]))
        pyramid.append(self.p7(F.relu(pyramid[-1])))
        return {
            level: norm(p)
            for level, (norm, p) in enumerate(zip(self.norms, pyramid, strict=True), start=3)
        }


class _SamePool(nn.Module):
    """The stem's 3x3 stride-2 max-pool, padded SAME as in both official code bases."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool_same(x, 3, 2)


def _timm_resnet(config: ResNetFPNConfig, layers: LayerConfig) -> Any:
    """timm's ResNet giving C3, C4, C5, with the project's norm, activation, pooling and padding."""
    body = timm.create_model(
        f"resnet{config.depth}",
        pretrained=False,
        features_only=True,
        out_indices=(2, 3, 4),
        channels=tuple(int(c * config.width) for c in STAGE_WIDTHS),
        act_layer=type(layers.act()),
        norm_layer=partial(nn.BatchNorm2d, eps=layers.bn_epsilon, momentum=layers.bn_momentum),
    )
    body.maxpool = _SamePool()
    if layers.flavor == "tf2":
        for name, conv in list(body.named_modules()):
            if isinstance(conv, nn.Conv2d) and conv.stride[0] > 1:
                kernel = cast(tuple[int, int], conv.kernel_size)
                same = SameConv2d(conv.in_channels, conv.out_channels, kernel, 2, bias=False)
                body.set_submodule(name, same)
    return body
