"""Do a recipe's anchors fit the data's objects? The share of objects that some anchor overlaps by
half or more, and the base size that would fit better.

An object that no anchor overlaps by half trains one forced anchor at most, and a poor one. So this
share bounds what a detector can learn before it has seen a picture. It takes time for objects times
shapes, not for all anchors: of the anchors of one shape at one level, the one whose centre is
nearest along both axes overlaps a box most, so no other has to be looked at.

Boxes are (x1, y1, x2, y2) in pixels of the network's input, whose sides are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from datamodules import CocoIndex
from datamodules.survey import placed_boxes
from experiments.recipe import Recipe
from spinenet.config import ClassifierConfig, Flavor, SpineNetConfig
from spinenet.detection.config import AnchorConfig, RetinaNetConfig
from spinenet.genotype import OUTPUT_LEVELS

MATCHED_IOU = 0.5
POOR_SHARE = 0.8  # of the objects matched; below it, settings are proposed
GAIN = 0.05  # of the objects that a proposal must match in addition
SIZES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
ENLARGEMENTS = (1, 2, 4)  # of the input's side, where no size will do: the objects are too small
LARGEST_SIDE = 1280  # the paper's own largest input
MOST_OBJECTS = 50_000  # looked at, drawn once: their share is within half a point of that of all


@dataclass(frozen=True)
class Anchoring:
    """All that decides a recipe's anchors: the field `key` of their base size, their configuration
    and flavour, the input's side and the levels.
    """

    key: str
    config: AnchorConfig
    flavor: Flavor
    side: int
    levels: tuple[int, ...] = OUTPUT_LEVELS

    def resized(self, size: float, side: int) -> Anchoring:
        """The same with another base size, at another side."""
        return replace(self, config=replace(self.config, size=size), side=side)


@dataclass(frozen=True)
class Fit:
    """How well anchors of base size `size` (the recipe's field `key`) fit at `side` pixels: `share`
    of the objects are matched. Where that is poor, `better_size` and `better_side` are what to set,
    and `better_share` what it gives; None where nothing tried helps.
    """

    key: str
    size: float
    side: int
    share: float
    better_size: float | None = None
    better_side: int | None = None
    better_share: float | None = None


def anchoring(recipe: Recipe) -> Anchoring | None:
    """The anchors of a recipe; a classifier has none."""
    model, side = recipe.model, recipe.data.transform.side
    if isinstance(model, ClassifierConfig):
        return None
    levels: tuple[int, ...] = OUTPUT_LEVELS
    if isinstance(model.backbone, SpineNetConfig):
        levels = tuple(model.backbone.genotype.outputs)
    if isinstance(model, RetinaNetConfig):
        return Anchoring("model.anchors.size", model.anchors, model.layers.flavor, side, levels)
    rpn = model.rpn.anchors
    return Anchoring("model.rpn.anchors.size", rpn, model.layers.flavor, side, levels)


def fit(index: CocoIndex, anchors: Anchoring) -> Fit:
    """How well anchors fit the objects of a split, of which there must be some."""
    size, side = anchors.config.size, anchors.side
    unit = placed_boxes(index, 1)
    if len(unit) > MOST_OBJECTS:
        unit = np.random.default_rng(0).choice(unit, MOST_OBJECTS, replace=False)
    found = Fit(anchors.key, size, side, _share(unit, anchors))
    best = found.share
    for factor in ENLARGEMENTS:
        if best >= POOR_SHARE or (factor > 1 and factor * side > LARGEST_SIDE):
            break
        better, share = _best_size(unit, anchors.resized(size, factor * side))
        if share >= best + GAIN:
            best = share
            found = replace(found, better_size=better, better_side=factor * side, better_share=best)
    return found


def _best_size(unit: np.ndarray, anchors: Anchoring) -> tuple[float, float]:
    """The size that matches most objects, and their share; of those within a point of it, the size
    nearest to the present one, as a ratio.
    """
    shares = {size: _share(unit, anchors.resized(size, anchors.side)) for size in SIZES}
    good = [size for size, share in shares.items() if share >= max(shares.values()) - 0.01]
    size = min(good, key=lambda size: abs(math.log(size / anchors.config.size)))
    return size, shares[size]


def _share(unit: np.ndarray, anchors: Anchoring) -> float:
    """Of boxes (N, 4) in an input of side 1, the share that is matched at the anchors' side."""
    return float((best_overlap(unit * anchors.side, anchors) >= MATCHED_IOU).mean())


def best_overlap(boxes: np.ndarray, anchors: Anchoring) -> np.ndarray:
    """(N,): the largest overlap that each of `boxes` (N, 4) has with an anchor.

    K shapes per cell.
    """
    from spinenet.detection.anchors import anchor_boxes  # torch, only where anchors are asked for

    best = np.zeros(len(boxes))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for level in anchors.levels:
        stride = 2**level
        cell = anchor_boxes(anchors.config, anchors.flavor, (stride, stride), [level])
        shapes = cell.double().numpy()  # (K, 4): the anchors of one cell, the first
        place = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride).astype(int)
        place = place.clip(0, -(-anchors.side // stride) - 1) * stride  # (N, 2): its own cell's
        placed = shapes[None] + np.tile(place, 2)[:, None]  # (N, K, 4)
        low = np.maximum(placed[..., :2], boxes[:, None, :2])
        high = np.minimum(placed[..., 2:], boxes[:, None, 2:])
        inter = (high - low).clip(min=0).prod(axis=-1)  # (N, K)
        sizes = (shapes[:, 2:] - shapes[:, :2]).prod(axis=1)
        best = np.maximum(best, (inter / (areas[:, None] + sizes - inter)).max(axis=1))
    return best
