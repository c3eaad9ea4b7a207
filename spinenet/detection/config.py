"""What can be chosen of a detector, as frozen data: RetinaNet and its parts, then Mask R-CNN's.

Each part's module has what the numbers mean to it. Nothing here imports torch, so that a recipe is
read and named without it, as in `spinenet.config`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from spinenet.config import LayerConfig, ResNetFPNConfig, SpineNetConfig, refuse_drop_block

Normalizer = Literal["global", "replica"]


@dataclass(frozen=True)
class AnchorConfig:
    """Base side in units of the level's stride, and how many scales an octave has."""

    size: float = 3.0
    scales: int = 3

    def __post_init__(self) -> None:
        if self.size <= 0 or self.scales < 1:
            raise ValueError(f"size {self.size} and scales {self.scales} must be positive")

    @property
    def per_cell(self) -> int:
        """Anchors per feature cell."""
        return 3 * self.scales


@dataclass(frozen=True)
class HeadConfig:
    """Depth and width of both subnets; `separable` convolutions for the mobile networks."""

    convs: int = 4
    filters: int = 256
    separable: bool = False

    def __post_init__(self) -> None:
        if self.convs < 0 or self.filters < 1:
            raise ValueError(f"convs {self.convs} and filters {self.filters} must be positive")


@dataclass(frozen=True)
class MatchConfig:
    """The overlap from which an anchor is positive."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"match.threshold {self.threshold} must be an overlap, in [0, 1]")


@dataclass(frozen=True)
class LossConfig:
    """Constants of the losses.

    `normalizer` says whose positives are counted: `global` counts those of all processes, so that
    one, two or four devices train alike; `replica` counts each process's own, as the official code
    does.
    """

    focal_alpha: float = 0.25
    focal_gamma: float = 1.5
    huber_delta: float = 0.1
    box_weight: float = 50.0
    normalizer: Normalizer = "global"

    def __post_init__(self) -> None:
        _check_normalizer(self.normalizer)
        if not 0 <= self.focal_alpha <= 1:
            raise ValueError(f"loss.focal_alpha {self.focal_alpha} must be a share, in [0, 1]")
        for name in ("focal_gamma", "box_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"loss.{name} {getattr(self, name)} must not be negative")
        _check_delta(self, "huber_delta")


def _check_delta(loss: LossConfig | MaskRCNNLossConfig, name: str) -> None:
    if not getattr(loss, name) > 0:
        raise ValueError(f"loss.{name} {getattr(loss, name)} must be above 0")


def _check_normalizer(normalizer: str) -> None:
    if normalizer not in get_args(Normalizer):
        known = ", ".join(get_args(Normalizer))
        raise ValueError(f"loss.normalizer {normalizer!r} is unknown; known: {known}")


@dataclass(frozen=True)
class PostprocessConfig:
    """Thresholds and caps of the detection generator.

    With `last_pixel` RetinaNet's boxes are decoded and clipped as tensorflow/tpu does, which counts
    a box's last pixel in although its targets do not; a checkpoint of that code base has its
    published AP with it. (Mask R-CNN follows its flavour.)
    """

    score_threshold: float = 0.05
    pre_nms_per_class: int = 5000
    nms_iou: float = 0.5
    max_detections: int = 100
    last_pixel: bool = False

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"postprocess.{name} {getattr(self, name)} must be in [0, 1], not in percent"
                )
        for name in ("pre_nms_per_class", "max_detections"):
            if getattr(self, name) < 1:
                raise ValueError(f"postprocess.{name} {getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class RetinaNetConfig:
    """Everything that decides the detector but the number of classes, which the data decides."""

    kind: Literal["retinanet"] = "retinanet"
    backbone: SpineNetConfig | ResNetFPNConfig = field(default_factory=SpineNetConfig)
    layers: LayerConfig = field(default_factory=LayerConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)

    def __post_init__(self) -> None:
        refuse_drop_block(self.backbone, self.layers)


@dataclass(frozen=True)
class RPNConfig:
    """Head, matching, sampling and proposals of the first stage.

    `samples` anchors per picture train the scores, at most `positive_share` of them positive.
    `candidates_train` and `candidates_test` boxes per level enter the suppression.
    """

    convs: int = 1
    filters: int = 256
    anchors: AnchorConfig = field(default_factory=lambda: AnchorConfig(size=3.0, scales=1))
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    samples: int = 256
    positive_share: float = 0.5
    candidates_train: int = 2000
    candidates_test: int = 1000
    nms_iou: float = 0.7
    proposals: int = 1000

    def __post_init__(self) -> None:
        if self.convs < 0:
            raise ValueError(f"rpn.convs {self.convs} must not be negative")
        for name in ("filters", "samples", "candidates_train", "candidates_test", "proposals"):
            if getattr(self, name) < 1:
                raise ValueError(f"rpn.{name} {getattr(self, name)} must be at least 1")
        if not 0 <= self.negative_iou <= self.positive_iou <= 1:
            raise ValueError(
                f"rpn.negative_iou {self.negative_iou} and rpn.positive_iou {self.positive_iou} "
                "must be overlaps with the first not above the second"
            )
        if not 0 <= self.positive_share <= 1:
            raise ValueError(f"rpn.positive_share {self.positive_share} must be in [0, 1]")


@dataclass(frozen=True)
class ROIConfig:
    """How the second stage's training regions are drawn.

    `samples` per picture, at most `positive_share` of them positive, that is with an overlap of at
    least `positive_iou`. The mask head trains on the first `samples * positive_share`.
    """

    samples: int = 512
    positive_share: float = 0.25
    positive_iou: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.positive_share <= 1 or self.masks < 1:
            raise ValueError(
                f"rois.samples {self.samples} and rois.positive_share {self.positive_share} "
                "leave no region to the mask head; raise one of them"
            )

    @property
    def masks(self) -> int:
        """Regions per picture that the mask head trains on."""
        return int(self.samples * self.positive_share)


@dataclass(frozen=True)
class BoxHeadConfig:
    """Convolutions, their width, and the width of the fully connected layer."""

    convs: int = 4
    filters: int = 256
    fc: int = 1024

    def __post_init__(self) -> None:
        if self.convs < 0 or self.filters < 1 or self.fc < 1:
            raise ValueError(
                f"box.convs {self.convs}, box.filters {self.filters} and box.fc {self.fc} "
                "must be positive"
            )


@dataclass(frozen=True)
class MaskHeadConfig:
    """Convolutions and their width."""

    convs: int = 4
    filters: int = 256

    def __post_init__(self) -> None:
        if self.convs < 0 or self.filters < 1:
            raise ValueError(
                f"mask.convs {self.convs} and mask.filters {self.filters} must be positive"
            )


@dataclass(frozen=True)
class MaskRCNNLossConfig:
    """Constants of the losses.

    `normalizer` says whose positives are counted: `global` counts those of all processes, so that
    one, two or four devices train alike; `replica` counts each process's own, as the official code
    does.
    """

    rpn_huber_delta: float = 1 / 9
    box_huber_delta: float = 1.0
    normalizer: Normalizer = "global"

    def __post_init__(self) -> None:
        _check_normalizer(self.normalizer)
        _check_delta(self, "rpn_huber_delta")
        _check_delta(self, "box_huber_delta")


@dataclass(frozen=True)
class MaskRCNNConfig:
    """Everything that decides the detector but the number of classes, which the data decides."""

    kind: Literal["mask-rcnn"] = "mask-rcnn"
    backbone: SpineNetConfig | ResNetFPNConfig = field(default_factory=SpineNetConfig)
    layers: LayerConfig = field(default_factory=LayerConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    rois: ROIConfig = field(default_factory=ROIConfig)
    box: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    loss: MaskRCNNLossConfig = field(default_factory=MaskRCNNLossConfig)
    postprocess: PostprocessConfig = field(
        default_factory=lambda: PostprocessConfig(pre_nms_per_class=1000)
    )

    def __post_init__(self) -> None:
        refuse_drop_block(self.backbone, self.layers)
