"""RetinaNet on any of the project's backbones, with the official settings (method of the paper's
section 4.1).
"""

from __future__ import annotations

from torch import Tensor, nn

from spinenet.backbone import SpineNet
from spinenet.config import LayerConfig, ResNetFPNConfig, SpineNetConfig
from spinenet.detection.anchors import AnchorCache
from spinenet.detection.config import RetinaNetConfig
from spinenet.detection.head import RetinaNetHead
from spinenet.detection.losses import Losses, detection_losses
from spinenet.detection.matching import match
from spinenet.detection.postprocess import Detections, detections
from spinenet.resnet import ResNetFPN


class RetinaNet(nn.Module):
    """A one-stage detector: backbone, head, and what turns their outputs into losses or detections.

    forward: images (B, 3, H, W) → logits (B, A, num_classes), box codes (B, A, 4).

    DistributedDataParallel shares the gradients of what its module's forward computes: wrap a
    module of your own whose forward returns `losses(...)`, not the detector itself.
    """

    def __init__(self, *, backbone: nn.Module, head: nn.Module, config: RetinaNetConfig) -> None:
        super().__init__()
        self.backbone, self.head, self.config = backbone, head, config
        self._anchors = AnchorCache(config.anchors, config.layers.flavor)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.backbone(images))

    def losses(self, images: Tensor, boxes: Tensor, labels: Tensor) -> Losses:
        """Losses on `images` (B, 3, H, W) with padded `boxes` (B, M, 4) in pixels and `labels` (B,
        M), 0 = padding.
        """
        logits, codes = self(images)
        targets = match(self.anchors(images), boxes, labels, self.config.match)
        return detection_losses(logits, codes, targets, self.config.loss, self.config.layers.flavor)

    def detect(self, images: Tensor, valid: Tensor) -> Detections:
        """Detections on `images`, clipped to `valid` (B, 2), the height and width of the picture
        inside the input.
        """
        logits, codes = self(images)
        return detections(logits, codes, self.anchors(images), valid, self.config.postprocess)

    def anchors(self, images: Tensor) -> Tensor:
        """The (A, 4) anchors of inputs of this size, kept on the images' device."""
        return self._anchors.of(images, list(self.backbone.channels))  # type: ignore[arg-type]


def build_backbone(
    config: SpineNetConfig | ResNetFPNConfig, layers: LayerConfig
) -> SpineNet | ResNetFPN:
    """The backbone that a configuration describes, freshly initialised."""
    if isinstance(config, SpineNetConfig):
        return SpineNet(config, layers)
    return ResNetFPN(config, layers)


def build_retinanet(config: RetinaNetConfig, num_classes: int) -> RetinaNet:
    """The detector that a configuration describes; `num_classes` counts the background, 91 for
    COCO.
    """
    backbone = build_backbone(config.backbone, config.layers)
    head = RetinaNetHead(
        config.head,
        config.layers,
        channels=backbone.channels,
        num_classes=num_classes,
        anchors=config.anchors.per_cell,
    )
    return RetinaNet(backbone=backbone, head=head, config=config)
