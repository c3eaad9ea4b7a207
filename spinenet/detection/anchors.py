"""Anchor boxes over P3..P7, and the code that boxes are regressed in.

Anchors: 3 scales 2**(k / 3) and 3 aspect ratios (width / height) at every cell centre, of base side
`anchor_size * stride` (tensorflow/tpu: dataloader/anchor.py). The order is scale-major; the aspect
ratios run 1, 2, 1/2 in `tf1` and 1/2, 1, 2 in `tf2`, which permutes the predictors' channels
between the two.

Boxes are (x1, y1, x2, y2) in pixels of the network's input. Codes are (ty, tx, th, tw) as in Faster
R-CNN, the order of the official heads, without scale factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spinenet.config import Flavor
from spinenet.detection.config import AnchorConfig

ASPECT_RATIOS: dict[Flavor, tuple[float, ...]] = {"tf1": (1.0, 2.0, 0.5), "tf2": (0.5, 1.0, 2.0)}
MAX_LOG_RATIO = math.log(1000 / 16)  # decoded boxes grow at most this much over their anchor
EPSILON = 1e-8

Inputs = tuple[tuple[int, int], tuple[int, ...], torch.device]  # side, levels, device


def anchor_boxes(
    config: AnchorConfig, flavor: Flavor, side: tuple[int, int], levels: Sequence[int]
) -> Tensor:
    """Anchors of an input of `side` = (height, width): (A, 4) float32, level by level, row by row,
    cell by cell.
    """
    return torch.cat([_level_anchors(config, flavor, side, level) for level in levels])


class AnchorCache:
    """Anchors of inputs, kept on the images' device until size, levels or device change.

    What a graph is exported with is made anew and not kept: it has no values.
    """

    def __init__(self, config: AnchorConfig, flavor: Flavor) -> None:
        self.config, self.flavor = config, flavor
        self._kept: tuple[Inputs, Tensor] | None = None

    def of(self, images: Tensor, levels: Sequence[int]) -> Tensor:
        """The (A, 4) anchors of `images` (B, 3, H, W)."""
        side = (images.shape[-2], images.shape[-1])
        if torch.compiler.is_exporting():
            return self._made(side, levels, images.device)
        inputs = (side, tuple(levels), images.device)
        if self._kept is None or self._kept[0] != inputs:
            self._kept = (inputs, self._made(*inputs))
        return self._kept[1]

    def _made(self, side: tuple[int, int], levels: Sequence[int], device: torch.device) -> Tensor:
        return anchor_boxes(self.config, self.flavor, side, levels).to(device)


def _level_anchors(
    config: AnchorConfig, flavor: Flavor, side: tuple[int, int], level: int
) -> Tensor:
    stride = 2**level
    rows, columns = (-(-s // stride) for s in side)
    shapes = [
        (config.size * stride * 2 ** (k / config.scales) * math.sqrt(ratio) ** sign)
        for k in range(config.scales)
        for ratio in ASPECT_RATIOS[flavor]
        for sign in (1, -1)
    ]
    half = (
        torch.tensor(shapes, dtype=torch.float64).view(-1, 2) / 2
    )  # (K, 2): half width, half height
    y = (torch.arange(rows, dtype=torch.float64) + 0.5) * stride
    x = (torch.arange(columns, dtype=torch.float64) + 0.5) * stride
    centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[
        :, :, None
    ]  # (rows, columns, 1, 2)
    return torch.cat([centre - half, centre + half], dim=-1).view(-1, 4).float()


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Codes (..., 4) of `boxes` (..., 4) against `anchors` (..., 4); sides are clamped to stay
    positive.
    """
    (bx, by, bw, bh), (ax, ay, aw, ah) = _centre_form(boxes), _centre_form(anchors)
    return torch.stack(
        [(by - ay) / ah, (bx - ax) / aw, torch.log(bh / ah), torch.log(bw / aw)], dim=-1
    )


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (..., 4) that `codes` (..., 4) stand for; the inverse of `encode`."""
    ty, tx, th, tw = codes.unbind(-1)
    ax, ay, aw, ah = _centre_form(anchors)
    x, y = tx * aw + ax, ty * ah + ay
    w = torch.exp(tw.clamp(max=MAX_LOG_RATIO)) * aw / 2
    h = torch.exp(th.clamp(max=MAX_LOG_RATIO)) * ah / 2
    return torch.stack([x - w, y - h, x + w, y + h], dim=-1)


def _centre_form(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = (x2 - x1).clamp(min=EPSILON), (y2 - y1).clamp(min=EPSILON)
    return x1 + w / 2, y1 + h / 2, w, h
