"""Regions of interest: which the second stage trains on, what they should become, and the features
it sees of them.

Training takes 512 regions per picture out of the proposals and the objects themselves, a quarter of
them with an overlap of 0.5 or more (tensorflow/tpu: ops/target_ops.py). Features come from level
floor(log2(side / 224)) + 4 within the levels there are, by RoIAlign with one sample per output
cell; a map's cell k lies at k strides (ops/spatial_transform_ops.py). Masks to learn are read from
the objects' crops the same way, but a crop's cell k lies at k + 1/2, since it stands for its share
of the box.

Two things are not as in the official code, which fills up with boxes without area: proposals that
do not exist are no candidates here, and a picture with fewer candidates than samples repeats them.

Shapes: B images, M padded objects, P proposals, R regions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from spinenet.detection.anchors import EPSILON
from spinenet.detection.choosing import balanced_sample, take
from spinenet.detection.config import ROIConfig
from spinenet.detection.matching import pairwise_iou
from spinenet.detection.rpn import Proposals

CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4


class ROITargets(NamedTuple):
    """Sampled regions, positives first: `rois` (B, R, 4); `labels` (B, R), 0 for background;
    `owners` (B, R), the object that overlaps most, and its `boxes` (B, R, 4).
    """

    rois: Tensor
    labels: Tensor
    owners: Tensor
    boxes: Tensor

    def first(self, count: int) -> ROITargets:
        """The first `count` regions of each picture."""
        return ROITargets(*(values[:, :count] for values in self))


@torch.no_grad()
def sample_rois(
    proposals: Proposals, boxes: Tensor, labels: Tensor, config: ROIConfig
) -> ROITargets:
    """Training regions out of `proposals` and `boxes` (B, M, 4) with `labels` (B, M), 0 where
    padded.
    """
    candidates = torch.cat([proposals.boxes, boxes], 1)
    real = torch.cat([proposals.real, labels > 0], 1)
    overlap = torch.vmap(_overlap)(boxes, candidates)  # (B, M, P + M)
    best, owners = overlap.masked_fill((labels == 0)[..., None], -1.0).max(1)
    positive = real & (best >= config.positive_iou)
    index, drawn = balanced_sample(
        positive, real & ~positive, config.samples, config.positive_share
    )
    turn = torch.arange(config.samples, device=index.device) % drawn.sum(1, keepdim=True).clamp(1)
    index = index.gather(1, turn)
    owners = take(owners, index)
    return ROITargets(
        rois=take(candidates, index),
        labels=take(labels, owners) * take(positive, index),
        owners=owners,
        boxes=take(boxes, owners),
    )


def _overlap(boxes: Tensor, candidates: Tensor) -> Tensor:
    """(M, N) of one picture's `boxes` (M, 4) and `candidates` (N, 4)."""
    return pairwise_iou(boxes[None], candidates)[0]


@torch.no_grad()
def mask_targets(masks: Tensor, targets: ROITargets, side: int) -> Tensor:
    """What the mask head should say of each region: (B, R, side, side) in [0, 1].

    `masks` (B, M, S, S) of 0 and 1 are the objects' masks, each cut to its box. What a region has
    outside its object's box is 0.
    """
    batch, objects, cells, _ = masks.shape
    corner = targets.boxes[..., :2].repeat(1, 1, 2)
    sides = (targets.boxes[..., 2:] - targets.boxes[..., :2]).clamp(min=EPSILON).repeat(1, 1, 2)
    border = 1  # of zeros, to fade to outside the crop
    places = (targets.rois - corner) / sides * cells + border
    crops = F.pad(masks.float().view(batch * objects, 1, cells, cells), (border,) * 4)
    which = targets.owners + torch.arange(batch, device=masks.device)[:, None] * objects
    cut = _align(crops, which, places, side)
    return cut.view(*which.shape, side, side)


def crop_features(features: dict[int, Tensor], boxes: Tensor, side: int) -> Tensor:
    """Features {level: (B, C, H, W)} under `boxes` (B, R, 4): (B * R, C, side, side)."""
    levels = sorted(features)
    which = roi_levels(boxes, levels)  # (B, R)
    sheet, tops = _sheet([features[level] for level in levels])
    stride = boxes.new_tensor([2.0**level for level in levels])[which]
    places = boxes / stride[..., None]
    top = boxes.new_tensor(tops)[which]
    places = places + torch.stack([torch.zeros_like(top), top] * 2, -1)
    picture = torch.arange(len(boxes), device=boxes.device)[:, None].expand(boxes.shape[:2])
    # `aligned` takes half a cell off, which the official grid does not have, and is the mode that
    # does not widen small regions; so half a cell is added first.
    cut = _align(sheet, picture, places + 0.5, side)
    return cut.to(features[levels[0]].dtype)


def roi_levels(boxes: Tensor, levels: list[int]) -> Tensor:
    """Index into the ascending `levels` for each of `boxes` (..., 4)."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    level = torch.log2(sides.prod(-1).sqrt() / CANONICAL_SIDE).floor() + CANONICAL_LEVEL
    return (torch.bucketize(level, level.new_tensor(levels), right=True) - 1).clamp(min=0)


def _sheet(maps: list[Tensor]) -> tuple[Tensor, list[float]]:
    """All maps above each other in one, (B, C, H', W'), and the row where each begins.

    One sheet needs one RoIAlign for all regions, whatever their levels: fixed shapes, no waiting.
    Each map's last row and column are doubled, so that reading between it and its neighbour gives
    the map's own border, as reading past the border does.
    """
    width = max(m.shape[-1] for m in maps)
    tops, parts, top = [], [], 0.0
    for m in maps:
        bordered = torch.cat([m, m[..., -1:, :]], -2)
        bordered = torch.cat([bordered, bordered[..., -1:]], -1)
        parts.append(F.pad(bordered, (0, width - m.shape[-1])))
        tops.append(top)
        top += bordered.shape[-2]
    return torch.cat(parts, -2).float(), tops


def _align(maps: Tensor, which: Tensor, places: Tensor, side: int) -> Tensor:
    """RoIAlign of `maps` (N, C, H, W) at `places` (B, R, 4) of the maps `which` (B, R): (B * R, C,
    side, side).
    """
    from torchvision.ops import roi_align  # slow to import, and RetinaNet does without

    rows = torch.cat([which[..., None].to(places), places], -1).flatten(0, 1)
    return roi_align(maps, rows, side, sampling_ratio=1, aligned=True)
