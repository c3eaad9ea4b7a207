"""Image classification by a scale-permuted network or a plain ResNet (section 4.2, tables 7, 11).

The head averages all endpoint features: from the coarsest level down, what has been summed is
enlarged to the next finer level and added; the sum divided by the number of levels is pooled over
the picture and goes through one linear layer (tensorflow/tpu: modeling/architecture/heads.py,
ClassificationHead with aggregation 'all'). A ResNet has one level, C5, so that the same head is its
usual one.

The printed counts are those of these networks at 224 pixels: multiply-adds of all convolutions and
of the linear layer, trainable parameters, 1001 classes for ImageNet (the official labels keep 0 for
a background that no picture has) and 5089 for iNaturalist-2017.

Shapes: B batch, C channels, H W spatial, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.backbone import SpineNet
from spinenet.config import ClassifierConfig, SpineNetConfig
from spinenet.resnet import ResNet


class Classifier(nn.Module):
    """A backbone, the mean of its levels, and a linear layer.

    forward: images (B, 3, H, W) → logits (B, K). `backbone` gives maps by level, all of the width
    that its `channels` names.
    """

    def __init__(
        self, *, backbone: SpineNet | ResNet, num_classes: int, label_smoothing: float
    ) -> None:
        super().__init__()
        self.backbone, self.label_smoothing = backbone, label_smoothing
        (features,) = set(backbone.channels.values())
        self.linear = nn.Linear(features, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(mean_of_levels(self.backbone(images)))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy, in float32, of `images` (B, 3, H, W) with `labels` (B,) in 0..K-1."""
        logits = self(images).float()
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


def mean_of_levels(features: dict[int, Tensor]) -> Tensor:
    """Pooled mean of all levels: {level: (B, C, H, W)} → (B, C)."""
    return merge_levels(features).mean(dim=(-2, -1))


def merge_levels(features: dict[int, Tensor]) -> Tensor:
    """Mean of all levels at the finest one's size: {level: (B, C, H, W)} → (B, C, H, W).

    Enlarging one level at a time matters where sizes do not divide: at 224 pixels the maps are 28,
    14, 7, 4 and 2 wide.
    """
    coarse, *finer = (features[level] for level in sorted(features, reverse=True))
    for x in finer:
        coarse = F.interpolate(coarse, size=x.shape[-2:], mode="nearest") + x
    return coarse / len(features)


def build_classifier(config: ClassifierConfig, num_classes: int) -> Classifier:
    """The classifier that a configuration describes, freshly initialised, with exactly
    `num_classes` outputs.
    """
    backbone: SpineNet | ResNet
    if isinstance(config.backbone, SpineNetConfig):
        backbone = SpineNet(config.backbone, config.layers)
    else:
        backbone = ResNet(config.backbone, config.layers)
    return Classifier(
        backbone=backbone, num_classes=num_classes, label_smoothing=config.label_smoothing
    )
