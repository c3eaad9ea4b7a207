"""Mask R-CNN on any of the project's backbones, with the official settings (the paper's two-stage
detector; tensorflow/tpu: configs/maskrcnn_config.py and configs/spinenet/*_mrcnn.yaml).

All parts read P3..P7, on ResNet-FPN too (Model Garden: configs/experiments/maskrcnn/r50fpn_640_*):
only so are its printed multiply-adds what they are. Those count 1000 regions in the box head and
100 in the mask head, the numbers of inference.

| | rpn | box head | mask head | anchor size |
|---|---|---|---|---|
| SpineNet-49S | 1 x 128 | 4 x 128, fc 512 | 4 x 128 | 3 |
| SpineNet-49, 96, 143, ResNet-FPN | 1 x 256 | 4 x 256, fc 1024 | 4 x 256 | 3 |
| SpineNet-190 | 7 x 384 printed, 1 x 384 released | 7 x 384, fc 1024 | 7 x 384 | 5 |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.detection import mask_rcnn_losses as terms
from spinenet.detection.anchors import AnchorCache
from spinenet.detection.config import MaskRCNNConfig
from spinenet.detection.instance_heads import BoxHead, MaskHead
from spinenet.detection.instances import InstanceDetections, detect_boxes
from spinenet.detection.mask_rcnn_losses import MaskRCNNLosses
from spinenet.detection.retinanet import build_backbone
from spinenet.detection.roi_codes import encode_rois
from spinenet.detection.rois import ROITargets, crop_features, mask_targets, sample_rois
from spinenet.detection.rpn import RPNHead, propose, rpn_targets

BOX_SIDE, MASK_SIDE = 7, 14  # of the features that the heads see; masks come out twice as large


class MaskRCNN(nn.Module):
    """A two-stage detector with masks: backbone, proposals, and two heads on regions.

    forward: images (B, 3, H, W) that fill the input → InstanceDetections. It runs on meta tensors
    too, where any boxes stand for those that suppression leaves, so that it can be counted. For
    DistributedDataParallel see `RetinaNet`.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        rpn: RPNHead,
        box_head: BoxHead,
        mask_head: MaskHead,
        config: MaskRCNNConfig,
    ) -> None:
        super().__init__()
        self.backbone, self.rpn, self.config = backbone, rpn, config
        self.box_head, self.mask_head = box_head, mask_head
        self._anchors = AnchorCache(config.rpn.anchors, config.layers.flavor)

    def forward(self, images: Tensor) -> InstanceDetections:
        return self.detect(images, _whole(images))

    def detect(self, images: Tensor, valid: Tensor) -> InstanceDetections:
        """Detections on `images`, clipped to `valid` (B, 2), the height and width of the picture
        inside the input.
        """
        config, flavor = self.config, self.config.layers.flavor
        anchors, features = self.anchors(images), self.backbone(images)
        candidates = config.rpn.candidates_test
        proposals = propose(
            self.rpn(features), anchors, valid, config.rpn, flavor, candidates=candidates
        )
        logits, codes = self.box_head(crop_features(features, proposals.boxes, BOX_SIDE))
        rows = proposals.real.shape
        logits, codes = logits.unflatten(0, rows), codes.unflatten(0, rows)
        found = detect_boxes(proposals, logits, codes, valid, config.postprocess, flavor)
        masks = self.mask_head(
            crop_features(features, found.boxes, MASK_SIDE), found.labels.flatten()
        )
        masks = masks.float().sigmoid().unflatten(0, found.labels.shape)
        return InstanceDetections(*found, masks * (found.labels > 0)[..., None, None])

    def losses(
        self, images: Tensor, boxes: Tensor, labels: Tensor, masks: Tensor
    ) -> MaskRCNNLosses:
        """Losses on `images` (B, 3, H, W) with padded `boxes` (B, M, 4) in pixels, `labels` (B, M),
        0 = padding, and `masks` (B, M, S, S) uint8 of 0 and 1, each cut to its box.
        """
        if masks.shape[:2] != labels.shape:
            raise ValueError(
                f"masks {tuple(masks.shape)} must have the rows of labels {tuple(labels.shape)}: "
                "one mask per object, cut to its box"
            )
        if labels.shape[1] == 0:  # no rows at all: one row of padding says the same
            boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1))
            masks = F.pad(masks, (0, 0, 0, 0, 0, 1))
        config, flavor = self.config, self.config.layers.flavor
        anchors, features = self.anchors(images), self.backbone(images)
        output = self.rpn(features)
        targets = rpn_targets(anchors, boxes, labels, config.rpn)
        nominal = config.rpn.samples if flavor == "tf1" else config.rois.samples
        rpn_score = terms.rpn_score_loss(output.logits, targets, nominal)
        rpn_box = terms.rpn_box_loss(output, targets, config.loss, flavor)

        candidates = config.rpn.candidates_train
        proposals = propose(
            output, anchors, _whole(images), config.rpn, flavor, candidates=candidates
        )
        sampled = sample_rois(proposals, boxes, labels, config.rois)
        classification, box = self._box_losses(features, sampled)
        mask = self._mask_loss(features, sampled.first(config.rois.masks), masks)
        total = rpn_score + rpn_box + classification + box + mask
        positives = (sampled.labels > 0).sum().float()
        return MaskRCNNLosses(total, rpn_score, rpn_box, classification, box, mask, positives)

    def _box_losses(
        self, features: dict[int, Tensor], sampled: ROITargets
    ) -> tuple[Tensor, Tensor]:
        """Class and box loss of the box head on the sampled regions."""
        config, flavor = self.config, self.config.layers.flavor
        logits, codes = self.box_head(crop_features(features, sampled.rois, BOX_SIDE))
        wanted = encode_rois(sampled.boxes, sampled.rois, flavor).flatten(0, 1)
        return terms.region_losses(
            logits, codes, sampled.labels.flatten(), wanted, config.loss, flavor
        )

    def _mask_loss(self, features: dict[int, Tensor], sampled: ROITargets, masks: Tensor) -> Tensor:
        """Loss of the mask head on the sampled regions; only the positive ones count."""
        config, labels = self.config, sampled.labels.flatten()
        logits = self.mask_head(crop_features(features, sampled.rois, MASK_SIDE), labels)
        wanted = mask_targets(masks, sampled, 2 * MASK_SIDE).flatten(0, 1)
        return terms.mask_loss(logits, wanted, labels, config.loss, config.layers.flavor)

    def anchors(self, images: Tensor) -> Tensor:
        """The (A, 4) anchors of inputs of this size, kept on the images' device."""
        return self._anchors.of(images, list(self.backbone.channels))  # type: ignore[arg-type]


def _whole(images: Tensor) -> Tensor:
    """(B, 2): the height and width of pictures that fill the input."""
    return torch.tensor(images.shape[-2:], device=images.device).expand(len(images), 2)


def build_mask_rcnn(config: MaskRCNNConfig, num_classes: int) -> MaskRCNN:
    """The detector that a configuration describes; `num_classes` counts the background, 91 for
    COCO.
    """
    backbone = build_backbone(config.backbone, config.layers)
    (inputs,) = set(backbone.channels.values())
    return MaskRCNN(
        backbone=backbone,
        rpn=RPNHead(config.rpn, config.layers, inputs=inputs, levels=backbone.channels),
        box_head=BoxHead(
            config.box, config.layers, inputs=inputs, side=BOX_SIDE, num_classes=num_classes
        ),
        mask_head=MaskHead(config.mask, config.layers, inputs=inputs, num_classes=num_classes),
        config=config,
    )
