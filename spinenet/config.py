"""What can be chosen of a network, as frozen data: layers, backbones, the classifier on top.

`spinenet.detection.config` goes on with the detectors. A class that is built from one of these says
so in its constructor. They stand apart from those classes because a recipe is read, checked and
named far more often than its network is built, and torch takes seconds to import: nothing here does
before a `LayerConfig` is asked for a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from spinenet import genotype as genotypes
from spinenet.genotype import Genotype

if TYPE_CHECKING:
    from torch import nn

    from spinenet.layers import ConvNormAct

Activation = Literal["relu", "swish", "hard_swish"]
Flavor = Literal["tf1", "tf2"]
Fusion = Literal["add", "concat"]
FUSIONS = get_args(Fusion)
Neck = Literal["fpn", "nas-fpn", "pan"]
NECKS = get_args(Neck)
Depth = Literal[34, 50, 101, 152]
DEPTHS = get_args(Depth)
STAGE_WIDTHS = (64, 128, 256, 512)
STEM_FILTERS, MOBILE_STEM_FILTERS = 64, 8


@dataclass(frozen=True)
class LayerConfig:
    """Conventions shared by all layers of a model.

    `bn_momentum` is the share of the new batch in the running statistics, as in PyTorch (0.01 for
    the paper's 0.99). `bn_epsilon` is 1e-3 in the Model Garden and 1e-4 by default in
    tensorflow/tpu. `sync_bn` shares batch statistics between processes.

    `stochastic_depth` is the rate at which the last block drops its branch, rising linearly with
    the block's index, in a ResNet with its group's (0.2 in protocol C). `drop_block` is the share
    of a map that DropBlock zeroes after every norm of a residual block, in squares of
    `drop_block_size` cells; ResNets have none.

    `zero_init_last` starts the last norm of every residual and bottleneck block at 0, so that a
    block begins as its shortcut (Goyal et al., 2017). It is timm's and torchvision's usual choice
    for ResNets; the official code starts every norm at 1 (tensorflow/tpu: nn_blocks.py).
    """

    flavor: Flavor = "tf1"
    activation: Activation = "relu"
    bn_momentum: float = 0.01
    bn_epsilon: float = 1e-3
    sync_bn: bool = False
    stochastic_depth: float = 0.0
    drop_block: float = 0.0
    drop_block_size: int = 7
    zero_init_last: bool = False

    def __post_init__(self) -> None:
        if self.flavor not in ("tf1", "tf2"):
            raise ValueError(f"flavor {self.flavor!r} is unknown; known: tf1, tf2")
        if self.activation not in get_args(Activation):
            known = ", ".join(get_args(Activation))
            raise ValueError(f"activation {self.activation!r} is unknown; known: {known}")
        if not 0 < self.bn_momentum <= 1:
            raise ValueError(
                f"bn_momentum {self.bn_momentum} must be in (0, 1]; the paper's 0.99 is 0.01 here"
            )
        if not self.bn_epsilon > 0:
            raise ValueError(f"bn_epsilon {self.bn_epsilon} must be above 0; usual is 1e-3")
        if self.drop_block_size < 1:
            raise ValueError(f"drop_block_size {self.drop_block_size} must be at least 1")
        for name in ("stochastic_depth", "drop_block"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be in [0, 1); 0 is off")

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        bias: bool = False,
        groups: int = 1,
    ) -> nn.Conv2d:
        """A convolution whose output side is ceil(side / stride), padded as the flavour pads."""
        from torch import nn

        from spinenet.layers import SameConv2d

        if stride > 1 and self.flavor == "tf2":
            return SameConv2d(inputs, outputs, kernel, stride, bias=bias, groups=groups)
        padding = (kernel - 1) // 2
        return nn.Conv2d(inputs, outputs, kernel, stride, padding=padding, bias=bias, groups=groups)

    def norm(self, channels: int) -> nn.Module:
        """Batch normalisation with the configured constants."""
        return self.norm_layer(channels)

    def last_norm(self, channels: int) -> nn.Module:
        """The norm that ends a block's branch."""
        from torch import nn

        norm = self.norm(channels)
        if self.zero_init_last:
            nn.init.zeros_(norm.weight)  # type: ignore[arg-type]
        return norm

    @property
    def norm_layer(self) -> partial[nn.Module]:
        """`norm` as the callable that timm's networks take."""
        from torch import nn

        kind: type[nn.Module] = nn.SyncBatchNorm if self.sync_bn else nn.BatchNorm2d
        return partial(kind, eps=self.bn_epsilon, momentum=self.bn_momentum)

    def act(self) -> nn.Module:
        """The activation; in place, since no layer here feeds it what another one still reads."""
        from spinenet.layers import ACTIVATIONS

        return ACTIVATIONS[self.activation](inplace=True)

    def drop_cells(self) -> nn.Module:
        """DropBlock, each channel by itself, or nothing (tensorflow/tpu: nn_ops.py, Dropblock)."""
        if not self.drop_block:
            return _nothing()
        from timm.layers import DropBlock2d  # timm takes long, and few recipes drop anything

        return DropBlock2d(self.drop_block, self.drop_block_size, couple_channels=False)

    def drop_branch(self, rate: float) -> nn.Module:
        """Stochastic depth per picture, scaled to keep the mean (nn_ops.py, drop_connect)."""
        if not rate:
            return _nothing()
        from timm.layers import DropPath

        return DropPath(rate)

    def conv_norm(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> ConvNormAct:
        """Convolution and norm, no activation."""
        return self._join(self.conv(inputs, outputs, kernel, stride), act=None)

    def conv_norm_act(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> ConvNormAct:
        """Convolution, norm, activation."""
        return self._join(self.conv(inputs, outputs, kernel, stride), act=self.act())

    def depthwise_norm_act(self, channels: int, kernel: int, stride: int = 1) -> ConvNormAct:
        """Depthwise convolution, norm, activation."""
        conv = self.conv(channels, channels, kernel, stride, groups=channels)
        return self._join(conv, act=self.act())

    def _join(self, conv: nn.Conv2d, act: nn.Module | None) -> ConvNormAct:
        from spinenet.layers import ConvNormAct

        return ConvNormAct(conv, self.norm(conv.out_channels), act)


def _nothing() -> nn.Module:
    from torch import nn

    return nn.Identity()


@dataclass(frozen=True)
class SpineNetConfig:
    """A scale-permuted backbone: its genotype and how it is scaled (section 3.4).

    `width` multiplies every inner width, `block_repeats` is the number of blocks per node,
    `resample_alpha` scales the inner width inside resampling, `endpoint_filters` is the channel
    count of P3..P7. `fusion` is how a node joins its parents: the paper's sum, or concatenation and
    a 1x1 convolution. A mobile genotype has no resample_alpha.
    """

    kind: Literal["spinenet"] = "spinenet"
    genotype: Genotype = field(default_factory=lambda: genotypes.load("spinenet-49"))
    width: float = 1.0
    block_repeats: int = 1
    resample_alpha: float = 0.5
    endpoint_filters: int = 256
    fusion: Fusion = "add"

    def __post_init__(self) -> None:
        if self.block_repeats < 1:
            raise ValueError(f"block_repeats {self.block_repeats} must be at least 1")
        if self.endpoint_filters < 1:
            raise ValueError(f"endpoint_filters {self.endpoint_filters} must be at least 1")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion {self.fusion!r} is unknown; known: {', '.join(FUSIONS)}")
        widths = [w * self.width for w in self.genotype.widths.values()]
        if self.genotype.is_mobile:
            widths.append(MOBILE_STEM_FILTERS * self.width)
        else:
            widths += [w * self.resample_alpha for w in widths]
        if int(min(widths)) < 1:
            raise ValueError(
                f"width {self.width} with resample_alpha {self.resample_alpha} leaves a layer "
                "without channels; raise one of them"
            )


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet of `depth` layers by itself, inner widths times `width`."""

    kind: Literal["resnet"] = "resnet"
    depth: Depth = 50
    width: float = 1.0

    def __post_init__(self) -> None:
        _check_body(self.depth, self.width)


@dataclass(frozen=True)
class ResNetFPNConfig:
    """A ResNet of `depth` layers, inner widths times `width`, under a neck of `endpoint_filters`
    channels.

    `neck_repeats` is the number of NAS-FPN's cells; `fusion` joins the paths of FPN and PAN; `spp`
    pools C5 at several scales before either.
    """

    kind: Literal["resnet-fpn"] = "resnet-fpn"
    depth: Depth = 50
    width: float = 1.0
    endpoint_filters: int = 256
    neck: Neck = "fpn"
    neck_repeats: int = 7
    fusion: Fusion = "add"
    spp: bool = False

    def __post_init__(self) -> None:
        _check_body(self.depth, self.width)
        for value, known in ((self.neck, NECKS), (self.fusion, FUSIONS)):
            if value not in known:
                raise ValueError(f"{value!r} is unknown; known: {', '.join(known)}")
        if self.neck_repeats < 1:
            raise ValueError(f"neck_repeats {self.neck_repeats} must be at least 1")


def _check_body(depth: int, width: float) -> None:
    if depth not in DEPTHS:
        known = ", ".join(map(str, DEPTHS))
        raise ValueError(f"depth {depth} is unknown; known: {known}")
    if int(STAGE_WIDTHS[0] * width) < 1:
        raise ValueError(f"width {width} leaves a layer without channels; raise it")


def refuse_drop_block(backbone: object, layers: LayerConfig) -> None:
    """Raise ValueError where a ResNet should drop cells."""
    if layers.drop_block and not isinstance(backbone, SpineNetConfig):
        raise ValueError(
            f"layers.drop_block {layers.drop_block} is for SpineNets; leave it at 0 for a ResNet"
        )


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that decides the classifier but the number of classes, which the data decides.

    The defaults of `layers` are the official ones for classification (BatchNorm momentum 0.9).
    `label_smoothing` is the share of the target spread over all classes: 0 in table 7, 0.1 in
    table 11. `background` adds an output that no picture asks for, as the official ImageNet labels
    do.
    """

    kind: Literal["classifier"] = "classifier"
    backbone: SpineNetConfig | ResNetConfig = field(default_factory=SpineNetConfig)
    layers: LayerConfig = field(
        default_factory=lambda: LayerConfig(bn_momentum=0.1, bn_epsilon=1e-5)
    )
    label_smoothing: float = 0.0
    background: bool = False

    def __post_init__(self) -> None:
        refuse_drop_block(self.backbone, self.layers)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing {self.label_smoothing} must be in [0, 1); 0 is off, the paper's "
                "improved protocol has 0.1"
            )
