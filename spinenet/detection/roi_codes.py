"""How boxes are coded, decoded and clipped, which the official code bases do differently.

tensorflow/tpu counts a box's last pixel in: a box from 3 to 5 is three wide, and boxes are clipped
to the last pixel's index (utils/box_utils.py). Its codes are therefore those of boxes whose far
corner lies one further. The anchors' targets alone are coded without it, there as here
(dataloader/anchor.py). The Model Garden measures everything plainly (ops/box_ops.py).

The second stage's codes are multiplied by `SCALES`, in the order (ty, tx, th, tw).
"""

from __future__ import annotations

import torch
from torch import Tensor

from spinenet.config import Flavor
from spinenet.detection.anchors import decode, encode

SCALES = (10.0, 10.0, 5.0, 5.0)


def decode_pixels(codes: Tensor, anchors: Tensor, flavor: Flavor) -> Tensor:
    """Boxes (..., 4) that unscaled `codes` (..., 4) stand for against `anchors` (..., 4)."""
    last = _last_pixel(anchors, flavor)
    return decode(codes, anchors + last) - last


def encode_rois(boxes: Tensor, rois: Tensor, flavor: Flavor) -> Tensor:
    """The second stage's codes (..., 4) of `boxes` (..., 4) against `rois` (..., 4)."""
    last = _last_pixel(rois, flavor)
    return encode(boxes + last, rois + last) * rois.new_tensor(SCALES)


def decode_rois(codes: Tensor, rois: Tensor, flavor: Flavor) -> Tensor:
    """Boxes (..., 4) that the second stage's `codes` (..., 4) stand for: `encode_rois` inverted."""
    return decode_pixels(codes / rois.new_tensor(SCALES), rois, flavor)


def clip(boxes: Tensor, valid: Tensor, flavor: Flavor) -> Tensor:
    """`boxes` (B, ..., 4) inside the pictures' height and width `valid` (B, 2)."""
    limit = valid.flip(-1).repeat(1, 2).to(boxes)  # (B, 4): width, height, width, height
    if flavor == "tf1":
        limit = limit - 1
    limit = limit.view(len(boxes), *[1] * (boxes.dim() - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limit)


def _last_pixel(like: Tensor, flavor: Flavor) -> Tensor:
    """What a box gains by counting its last pixel in."""
    return like.new_tensor((0.0, 0.0, 1.0, 1.0) if flavor == "tf1" else (0.0,) * 4)
