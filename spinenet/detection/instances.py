"""From the second stage's outputs to detected instances, for a whole batch at once.

Softmax over the classes, background dropped, each class's own box decoded and clipped, per class
the best 1000 above a score of 0.05, hard NMS at 0.5 within each class, the best 100 of each picture
(tensorflow/tpu: ops/postprocess_ops.py, GenericDetectionGenerator).

Shapes: B images, P proposals, K classes with the background, D detections.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spinenet.config import Flavor
from spinenet.detection.choosing import best_after_nms, take
from spinenet.detection.config import PostprocessConfig
from spinenet.detection.postprocess import Detections
from spinenet.detection.roi_codes import clip, decode_rois
from spinenet.detection.rpn import Proposals


class InstanceDetections(NamedTuple):
    """Padded detections, best first: boxes (B, D, 4), scores (B, D), labels (B, D) int64, 0 where
    padded; masks (B, D, S, S), the probability that a cell of the box belongs to the object.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor


@torch.no_grad()
def detect_boxes(
    proposals: Proposals,
    logits: Tensor,
    codes: Tensor,
    valid: Tensor,
    config: PostprocessConfig,
    flavor: Flavor,
) -> Detections:
    """Detections from `logits` (B, P, K) and `codes` (B, P, K, 4) of `proposals`.

    `valid` (B, 2) is the height and width of each picture inside the padded input; boxes are
    clipped to it.
    """
    scores = logits.float().softmax(-1)[..., 1:] * proposals.real[..., None]
    boxes = decode_rois(codes[:, :, 1:].float(), proposals.boxes[:, :, None], flavor)
    batch, count, classes = scores.shape
    best, index = scores.transpose(1, 2).topk(min(config.pre_nms_per_class, count))  # (B, K - 1, n)
    boxes = boxes.transpose(1, 2).gather(2, index[..., None].expand(-1, -1, -1, 4))
    boxes = clip(boxes.flatten(1, 2), valid, flavor)
    # One group per picture and class.
    groups = torch.arange(batch * classes, device=logits.device).view(batch, classes, 1)
    labels = torch.arange(1, classes + 1, device=logits.device).view(1, classes, 1)
    flat, real = best_after_nms(
        boxes,
        best.masked_fill(best <= config.score_threshold, -torch.inf).flatten(1),
        groups.expand_as(best).flatten(1),
        iou=config.nms_iou,
        count=config.max_detections,
    )
    return Detections(
        boxes=take(boxes, flat) * real[..., None],
        scores=take(best.flatten(1), flat) * real,
        labels=take(labels.expand_as(best).flatten(1), flat) * real,
    )
