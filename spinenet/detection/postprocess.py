"""From the head's outputs to detections, for a whole batch at once.

Sigmoid, background dropped, boxes decoded and clipped, per class the best 5000 above a score of
0.05, hard NMS at 0.5 within each class, the best 100 of each image (tensorflow/tpu:
ops/postprocess_ops.py). torchvision's NMS does the suppression, image by image, since its time
grows with the square of what it is given at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spinenet.config import Flavor
from spinenet.detection.config import PostprocessConfig
from spinenet.detection.roi_codes import clip, decode_pixels


class Detections(NamedTuple):
    """Padded detections, best first: boxes (B, D, 4), scores (B, D), labels (B, D) int64, 0 where
    padded.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@torch.no_grad()
def detections(
    logits: Tensor, codes: Tensor, anchors: Tensor, valid: Tensor, config: PostprocessConfig
) -> Detections:
    """Detections from `logits` (B, A, K), `codes` (B, A, 4), `anchors` (A, 4).

    `valid` (B, 2) is the height and width of each picture inside the padded input; boxes are
    clipped to it.
    """
    scores = torch.sigmoid(logits.float())[..., 1:]
    image, anchor, label = (scores > config.score_threshold).nonzero(as_tuple=True)
    score = scores[image, anchor, label]
    group = image * scores.shape[2] + label
    keep = _best_of_each(group, score, config.pre_nms_per_class)
    image, anchor, label, score = (t[keep] for t in (image, anchor, label, score))

    pixels: Flavor = "tf1" if config.last_pixel else "tf2"
    boxes = decode_pixels(codes[image, anchor].float(), anchors[anchor], pixels)
    boxes = clip(boxes, valid[image], pixels)
    keep = _suppress(boxes, score, label, torch.bincount(image, minlength=len(logits)), config)
    image, label, score, boxes = image[keep], label[keep], score[keep], boxes[keep]
    return _pad(image, boxes, score, label + 1, logits.shape[0], config.max_detections)


def _best_of_each(group: Tensor, score: Tensor, cap: int) -> Tensor:
    """Indices of the `cap` best scores of each group, best first within it, group by group."""
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    return order[_rank_in_run(group[order]) < cap]


def _suppress(
    boxes: Tensor, score: Tensor, label: Tensor, counts: Tensor, config: PostprocessConfig
) -> Tensor:
    """Indices of what is left in each image, best first, image by image; `counts` rows are each
    image's.
    """
    from torchvision.ops import batched_nms  # slow to import, and only detections need it

    # torchvision shifts each class's boxes apart; in float64 the shift does not cost the boxes
    # their precision.
    columns, first = (boxes.double(), score.double(), label), 0
    kept = [label[:0]]  # of a batch without pictures, too
    for rows in zip(*(column.split(counts.tolist()) for column in columns), strict=True):
        kept.append(first + batched_nms(*rows, config.nms_iou))
        first += len(rows[0])
    return torch.cat(kept)


def _pad(
    image: Tensor, boxes: Tensor, score: Tensor, label: Tensor, batch: int, cap: int
) -> Detections:
    """Rows by image, best first → one padded row of `cap` detections per image."""
    rank = _rank_in_run(image)
    kept = rank < cap
    out = Detections(
        boxes.new_zeros(batch, cap, 4), score.new_zeros(batch, cap), label.new_zeros(batch, cap)
    )
    for padded, rows in zip(out, (boxes, score, label), strict=True):
        padded[image[kept], rank[kept]] = rows[kept]
    return out


def _rank_in_run(values: Tensor) -> Tensor:
    """Position of each entry within its run of equal values: [3, 3, 5, 5, 5] → [0, 1, 0, 1, 2]."""
    position = torch.arange(len(values), device=values.device)
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    return position - torch.cummax(torch.where(starts, position, 0), dim=0).values
