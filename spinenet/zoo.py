"""The paper's models by name: backbone, heads, anchors and the side they are counted and run at.

SpineNet's family is two genotypes, scaled (section 3.4; tensorflow/tpu:
modeling/architecture/spinenet.py, SCALING_MAP, and configs/spinenet/*.yaml). The released
SpineNet-49S has endpoints of 128 filters; the counts that the paper prints for it are those of a
network with endpoints of 256.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from spinenet import genotype as genotypes
from spinenet.config import (
    ClassifierConfig,
    Depth,
    LayerConfig,
    Neck,
    ResNetConfig,
    ResNetFPNConfig,
    SpineNetConfig,
)
from spinenet.detection.config import (
    AnchorConfig,
    BoxHeadConfig,
    HeadConfig,
    MaskHeadConfig,
    MaskRCNNConfig,
    RetinaNetConfig,
    RPNConfig,
)
from spinenet.naming import unknown

BackboneConfig = SpineNetConfig | ResNetFPNConfig


@dataclass(frozen=True)
class TwoStage:
    """The released heads of Mask R-CNN, and the side that they run at (None: the model's own)."""

    rpn: RPNConfig = field(default_factory=RPNConfig)
    box: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    side: int | None = None


@dataclass(frozen=True)
class Model:
    """A model of the paper; `side` is its input in pixels, `head` and `anchors` are RetinaNet's."""

    backbone: BackboneConfig
    head: HeadConfig
    side: int
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    two_stage: TwoStage = field(default_factory=TwoStage)

    def retinanet(self, layers: LayerConfig | None = None) -> RetinaNetConfig:
        """The one-stage detector, in the conventions of `layers`."""
        return RetinaNetConfig(
            backbone=self.backbone,
            head=self.head,
            anchors=self.anchors,
            layers=layers or LayerConfig(),
        )

    def mask_rcnn(self, layers: LayerConfig | None = None) -> MaskRCNNConfig:
        """The two-stage detector, in the conventions of `layers`."""
        return MaskRCNNConfig(
            backbone=self.backbone,
            rpn=self.two_stage.rpn,
            box=self.two_stage.box,
            mask=self.two_stage.mask,
            layers=layers or LayerConfig(),
        )

    def classifier(self, layers: LayerConfig | None = None) -> ClassifierConfig:
        """The ImageNet classifier, in the conventions of `layers`; a ResNet goes without a neck."""
        backbone = self.backbone
        if isinstance(backbone, ResNetFPNConfig):
            body: SpineNetConfig | ResNetConfig = ResNetConfig(depth=backbone.depth)
        else:
            body = backbone
        config = ClassifierConfig(backbone=body, background=True)
        return config if layers is None else replace(config, layers=layers)


def _spinenet(
    *,
    side: int,
    genotype: str = "spinenet-49",
    width: float = 1.0,
    repeats: int = 1,
    alpha: float = 0.5,
    endpoints: int = 256,
    head: tuple[int, int] = (4, 256),
    anchor_size: float = 3.0,
    two_stage: TwoStage | None = None,
) -> Model:
    backbone = SpineNetConfig(
        genotype=genotypes.load(genotype),
        width=width,
        block_repeats=repeats,
        resample_alpha=alpha,
        endpoint_filters=endpoints,
    )
    anchors = AnchorConfig(size=anchor_size)
    return Model(backbone, HeadConfig(*head), side, anchors, two_stage or TwoStage())


def _small_two_stage() -> TwoStage:
    return TwoStage(
        rpn=RPNConfig(filters=128),
        box=BoxHeadConfig(filters=128, fc=512),
        mask=MaskHeadConfig(filters=128),
    )


def _large_two_stage() -> TwoStage:
    return TwoStage(
        rpn=RPNConfig(filters=384, anchors=AnchorConfig(size=5.0, scales=1)),
        box=BoxHeadConfig(convs=7, filters=384),
        mask=MaskHeadConfig(convs=7, filters=384),
        side=1536,
    )


def _mobile(width: float, filters: int, side: int) -> Model:
    backbone = SpineNetConfig(
        genotype=genotypes.load("spinenet-49-mobile"), width=width, endpoint_filters=filters
    )
    return Model(backbone, HeadConfig(4, filters, separable=True), side)


def _resnet(depth: Depth, side: int, neck: Neck = "fpn") -> Model:
    return Model(ResNetFPNConfig(depth=depth, neck=neck), HeadConfig(), side)


MODELS: dict[str, Callable[[], Model]] = {
    "spinenet-49s": lambda: _spinenet(
        side=640, width=0.65, endpoints=128, head=(4, 128), two_stage=_small_two_stage()
    ),
    "spinenet-49s-printed": lambda: _spinenet(side=640, width=0.65, head=(4, 128)),
    "spinenet-49": lambda: _spinenet(side=640),
    "spinenet-96": lambda: _spinenet(side=1024, repeats=2),
    "spinenet-143": lambda: _spinenet(side=1280, repeats=3, alpha=1.0, anchor_size=4.0),
    "spinenet-143l": lambda: _spinenet(side=1280, repeats=3, alpha=1.0, width=1.3, anchor_size=4.0),
    "spinenet-190": lambda: _spinenet(
        side=1280,
        repeats=4,
        alpha=1.0,
        width=1.3,
        endpoints=512,
        head=(7, 512),
        anchor_size=4.0,
        two_stage=_large_two_stage(),
    ),
    "r0-sp53": lambda: _spinenet(side=640, genotype="r0-sp53"),
    "r23-sp30": lambda: _spinenet(side=640, genotype="r23-sp30"),
    "mobile-spinenet-49xs": lambda: _mobile(0.6, 24, 256),
    "mobile-spinenet-49s": lambda: _mobile(0.65, 40, 384),
    "mobile-spinenet-49": lambda: _mobile(1.0, 48, 384),
    "r50-fpn": lambda: _resnet(50, 640),
    "r50-nas-fpn": lambda: _resnet(50, 640, "nas-fpn"),
    "r101-fpn": lambda: _resnet(101, 1024),
    "r152-fpn": lambda: _resnet(152, 1280),
}


def model(name: str) -> Model:
    """A model of the paper by name. Raises ValueError with the nearest name for an unknown one."""
    if name not in MODELS:
        raise ValueError(unknown("model", name, MODELS))
    return MODELS[name]()
