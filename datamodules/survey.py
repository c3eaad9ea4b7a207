"""What a data set holds, counted before anything trains on it: pictures, objects, classes, and how
large the objects are, which decides more than any setting whether a detector can learn them.

An object's share is the area of its box over that of its picture. Crowds are not counted: they are
no targets.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from datamodules.class_sources import ClassSource
from datamodules.coco import CocoIndex, refuse_unlike, refuse_unseen
from datamodules.digits_scene import SPLITS
from datamodules.labels import ClassIndex

if TYPE_CHECKING:
    from datamodules.sources import Source

TINY_SHARE = 0.01  # of the picture


@dataclass(frozen=True)
class SplitCount:
    """Pictures of a split, how many of them show nothing, and its objects. Of labelled pictures,
    each is one object.
    """

    pictures: int
    empty: int
    objects: int


@dataclass(frozen=True)
class Survey:
    """What a data set holds; ``per_class`` counts training's objects by class name.

    ``median_share`` and ``tiny_share`` are those of training's objects: the median of their shares
    of the picture, and how many of them are below ``TINY_SHARE``, of all. None for labelled
    pictures.
    """

    splits: dict[str, SplitCount]
    per_class: dict[str, int]
    median_share: float | None = None
    tiny_share: float | None = None


def survey(source: "Source | ClassSource") -> Survey:
    """Count both splits. Raises DataError where they do not go together."""
    if isinstance(source, ClassSource):
        return _survey_labels({split: source.index(split) for split in SPLITS})
    indices = {split: source.index(split) for split in SPLITS}
    train = indices["train"]
    refuse_unlike(train, indices["val"])
    refuse_unseen(train, indices["val"])
    shares = area_shares(train)
    labels = [label for r in train.images for label in r.labels[~r.iscrowd].tolist()]
    numbers, counts = np.unique(labels, return_counts=True)
    found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    return Survey(
        splits={split: _count(index) for split, index in indices.items()},
        per_class={name: found.get(label, 0) for label, name in train.class_names.items()},
        median_share=float(np.median(shares)) if len(shares) else None,
        tiny_share=float((shares < TINY_SHARE).mean()) if len(shares) else None,
    )


def area_shares(index: CocoIndex) -> np.ndarray:
    """float64 [N]: the share of its picture that each object's box has."""
    shares = [np.zeros(0)]
    for record in index.images:
        x1, y1, x2, y2 = record.boxes[~record.iscrowd].astype("f8").T
        shares.append((x2 - x1) * (y2 - y1) / (record.height * record.width))
    return np.concatenate(shares)


def placed_boxes(index: CocoIndex, side: int) -> np.ndarray:
    """float64 [N, 4]: the objects' boxes in pixels of a network input of ``side``, into which each
    picture is fitted as for evaluation.
    """
    boxes = [np.zeros((0, 4))]
    for record in index.images:
        scale = side / max(record.height, record.width)
        boxes.append(record.boxes[~record.iscrowd].astype("f8") * scale)
    return np.concatenate(boxes)


def _count(index: CocoIndex) -> SplitCount:
    objects = [record.targets for record in index.images]
    return SplitCount(len(objects), objects.count(0), sum(objects))


def _survey_labels(indices: dict[str, ClassIndex]) -> Survey:
    train = indices["train"]
    counts = np.bincount(
        [picture.class_number for picture in train.pictures], minlength=len(train.class_names)
    )
    sizes = {split: len(index.pictures) for split, index in indices.items()}
    return Survey(
        splits={split: SplitCount(size, 0, size) for split, size in sizes.items()},
        per_class=dict(zip(train.class_names, counts.tolist(), strict=True)),
    )
