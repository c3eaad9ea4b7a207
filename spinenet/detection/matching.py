"""Which anchor learns which ground-truth box, for a whole batch at once.

An anchor is positive when its best overlap reaches 0.5 and negative below; no band is ignored. Each
ground-truth box also claims the anchor that overlaps it most, whatever the overlap (tensorflow/tpu:
dataloader/anchor.py, the argmax matcher with force_match_for_each_row).

Shapes: B images, M padded ground-truth boxes, A anchors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spinenet.detection.anchors import encode
from spinenet.detection.config import MatchConfig


class Assignment(NamedTuple):
    """Which box an anchor learns: the box's row `owner` (B, A), meant where `positive` (B, A), and
    the anchor's largest `overlap` (B, A) with any box, -1 in a picture without boxes.
    """

    owner: Tensor
    positive: Tensor
    overlap: Tensor


class Targets(NamedTuple):
    """What the head should say: labels (B, A) int64, 0 for background; box codes (B, A, 4), 0 off
    the positives. `overlap` (B, A) is the anchor's largest, -1 in a picture without boxes.
    """

    labels: Tensor
    codes: Tensor
    overlap: Tensor

    @property
    def positive(self) -> Tensor:
        """(B, A) bool."""
        return self.labels > 0


@torch.no_grad()
def match(anchors: Tensor, boxes: Tensor, labels: Tensor, config: MatchConfig) -> Targets:
    """Targets of `anchors` (A, 4) for `boxes` (B, M, 4) with `labels` (B, M), 0 where padded."""
    if boxes.shape[1] == 0:  # no rows at all: one row of padding says the same
        boxes, labels = boxes.new_zeros(len(boxes), 1, 4), labels.new_zeros(len(labels), 1)
    owner, positive, overlap = assign(pairwise_iou(boxes, anchors), labels > 0, config)
    assigned = labels.gather(1, owner).masked_fill(~positive, 0)
    owned = boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    codes = encode(owned, anchors).masked_fill(~positive[..., None], 0.0)
    return Targets(assigned, codes, overlap)


def assign(iou: Tensor, real: Tensor, config: MatchConfig) -> Assignment:
    """The matching itself, from overlaps `iou` (B, M, A) with boxes that are `real` (B, M)."""
    iou = iou.masked_fill(~real[..., None], -1.0)
    overlap, owner = iou.max(dim=1)  # over the boxes: (B, A)
    taken = overlap >= config.threshold

    # Forced matches: anchor forced[b, m] goes to box m. Where two boxes claim one anchor the first
    # keeps it, as in the official matcher, whose argmax over boxes breaks ties that way.
    forced = iou.argmax(dim=2)  # (B, M)
    count = iou.shape[1]
    claims = torch.full_like(owner, count)
    order = torch.arange(count, device=iou.device).expand_as(forced)
    order = order.masked_fill(~real, count)
    claims.scatter_reduce_(1, forced, order, reduce="amin")
    is_forced = claims < count
    return Assignment(torch.where(is_forced, claims, owner), taken | is_forced, overlap)


def pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Overlap of `boxes` (B, M, 4) with `anchors` (A, 4): (B, M, A)."""
    b, a = boxes[:, :, None], anchors[None, None]
    # In place: a tensor of this shape is the largest of a training step, and three at once do.
    inter = _shared(b[..., 0], b[..., 2], a[..., 0], a[..., 2])
    inter.mul_(_shared(b[..., 1], b[..., 3], a[..., 1], a[..., 3]))
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    return inter.div_((area_b + area_a).sub_(inter).clamp_min_(1e-8))


def _shared(first: Tensor, last: Tensor, other_first: Tensor, other_last: Tensor) -> Tensor:
    """How much of two spans along one axis is common."""
    start = torch.maximum(first, other_first)
    return torch.minimum(last, other_last).sub_(start).clamp_min_(0)
