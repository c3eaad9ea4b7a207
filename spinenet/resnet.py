"""ResNet-FPN, the paper's baseline: timm's ResNet under a feature pyramid.

timm's ResNet already has the stride in the 3x3 convolution and, like SpineNet here, a stem of 64
filters at any width. Norms and stochastic depth are set as in the official code (tensorflow/tpu:
modeling/architecture/resnet.py), where a ResNet is built of the blocks that a SpineNet is built of.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from spinenet.config import STAGE_WIDTHS, Depth, LayerConfig, ResNetConfig, ResNetFPNConfig
from spinenet.layers import SameConv2d, init_backbone, max_pool_same
from spinenet.necks import FPN, LEVELS, NASFPN, PAN, SPP

GROUPS = len(STAGE_WIDTHS)


class ResNet(nn.Module):
    """A ResNet by itself.

    forward: (B, 3, H, W) → {5: C5}, (B, channels[5], ceil(H / 32), ceil(W / 32)).
    """

    def __init__(self, config: ResNetConfig, layers: LayerConfig) -> None:
        super().__init__()
        self.flavor = layers.flavor
        self.body = timm_resnet(layers, depth=config.depth, width=config.width)
        self.channels = {5: self.body.feature_info.channels()[-1]}
        init_backbone(self)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        return {5: self.body(images)[-1]}


class ResNetFPN(nn.Module):
    """ResNet and FPN.

    forward: (B, 3, H, W) → {level: (B, endpoint_filters, ceil(H / 2**level), ceil(W / 2**level))},
    levels 3..7.
    """

    def __init__(self, config: ResNetFPNConfig, layers: LayerConfig) -> None:
        super().__init__()
        self.flavor = layers.flavor
        self.body = timm_resnet(layers, depth=config.depth, width=config.width)
        inputs = self.body.feature_info.channels()
        self.spp = SPP(layers, channels=inputs[-1]) if config.spp else nn.Identity()
        self.fpn = _neck(config, layers, inputs)
        self.channels = dict.fromkeys(LEVELS, config.endpoint_filters)
        init_backbone(self)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        *finer, c5 = self.body(images)
        return self.fpn([*finer, self.spp(c5)])


def _neck(config: ResNetFPNConfig, layers: LayerConfig, inputs: list[int]) -> nn.Module:
    filters = config.endpoint_filters
    if config.neck == "nas-fpn":
        return NASFPN(layers, inputs=inputs, filters=filters, repeats=config.neck_repeats)
    pyramid = PAN if config.neck == "pan" else FPN
    return pyramid(layers, inputs=inputs, filters=filters, fusing=config.fusion)


class _SamePool(nn.Module):
    """The stem's 3x3 stride-2 max-pool, padded SAME as in both official code bases."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool_same(x, 3, 2)


def timm_resnet(layers: LayerConfig, *, depth: Depth, width: float) -> Any:
    """timm's ResNet giving C3, C4, C5, with the project's norm, activation, pooling and padding.

    Stochastic depth rises from group to group, 2/5 of its rate in the first, where timm has it rise
    from block to block.
    """
    import timm  # all of its models, so longer than torch itself: not for who has no ResNet

    body = timm.create_model(
        f"resnet{depth}",
        pretrained=False,
        features_only=True,
        out_indices=(2, 3, 4),
        channels=tuple(int(c * width) for c in STAGE_WIDTHS),
        act_layer=type(layers.act()),
        norm_layer=layers.norm_layer,
        zero_init_last=layers.zero_init_last,
    )
    body.maxpool = _SamePool()
    for group in range(1, GROUPS + 1):
        for block in body.get_submodule(f"layer{group}").children():
            block.drop_path = layers.drop_branch(
                layers.stochastic_depth * (group + 1) / (GROUPS + 1)
            )
    if layers.flavor == "tf2":
        for name, conv in list(body.named_modules()):
            if isinstance(conv, nn.Conv2d) and conv.stride[0] > 1:
                kernel = cast(tuple[int, int], conv.kernel_size)
                same = SameConv2d(conv.in_channels, conv.out_channels, kernel, 2, bias=False)
                body.set_submodule(name, same)
    return body
