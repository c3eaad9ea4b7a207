"""iNaturalist-2017, and any data labelled in COCO's format with one category per picture.

In the `bbox` form (section 4.2) a sample is an annotated box instead: the picture cut to 1.5 times
the box about its centre. Pictures without a box are no part of it, and one with three boxes is cut
three times; so the annotation files' 496,164 boxes are the training samples that the paper counts.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules import coco_file
from datamodules.coco import CocoIndex, ImageRecord, read_coco
from datamodules.damage import Damage, OnError
from datamodules.errors import DataError
from datamodules.labels import Listing, Region, Row


@dataclass(frozen=True)
class INaturalistConfig:
    """A folder with one annotation file per split; file names in it count from the folder."""

    kind: Literal["inaturalist"] = "inaturalist"
    root: str = ""
    annotations: str = "{split}2017.json"


@dataclass(frozen=True)
class INaturalistBoxesConfig:
    """The same folder with annotated boxes, each of which is a sample."""

    kind: Literal["inaturalist-bbox"] = "inaturalist-bbox"
    root: str = ""
    annotations: str = "{split}_2017_bboxes.json"
    context: float = 1.5
    """Width and height of a sample, in those of its box."""

    def __post_init__(self) -> None:
        if self.context <= 0:
            raise DataError(f"context is {self.context}; give a factor above 0, e.g. 1.5")


def list_inaturalist(config: INaturalistConfig, split: str) -> Listing:
    """One sample per picture of ``split``, "train" or "val", in the order of image ids."""
    root = Path(config.root).expanduser()
    file = root / config.annotations.format(split=split)
    content = coco_file.read_json(file)
    categories = coco_file.categories(file, content["categories"])
    images = coco_file.image_entries(file, content["images"])
    labels = _labels(file, content["annotations"], images, categories)
    rows = [Row(images[image]["file_name"], str(labels[image])) for image in sorted(images)]
    return Listing(file, root, rows, _by_key(categories))


def list_inaturalist_boxes(
    config: INaturalistBoxesConfig, split: str, on_error: OnError = "raise"
) -> Listing:
    """One sample per box of ``split``, "train" or "val", in the order of image ids. ``on_error``
    "skip" leaves out pictures that are missing or have a damaged box.
    """
    root, damage = Path(config.root).expanduser(), Damage(on_error)
    file = root / config.annotations.format(split=split)
    index = read_coco(file, root, on_error=on_error)
    rows: list[Row] = []
    for record in index.images:
        try:
            rows += _samples(index, record, config)
        except DataError as error:
            damage.take(error, record.id)
    left_out = (*index.left_out, *damage.complaints.values())
    return Listing(file, root, rows, _by_key(index.categories), left_out)


def enlarged(box: list[float], context: float, width: int, height: int) -> Region:
    """``box`` (x1, y1, x2, y2) scaled about its centre, rounded outwards, cut to the picture."""
    x1, y1, x2, y2 = box
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    half_width, half_height = context * (x2 - x1) / 2, context * (y2 - y1) / 2
    left, top = max(math.floor(x - half_width), 0), max(math.floor(y - half_height), 0)
    right = min(math.ceil(x + half_width), width)
    bottom = min(math.ceil(y + half_height), height)
    return left, top, right, bottom


def _samples(index: CocoIndex, record: ImageRecord, config: INaturalistBoxesConfig) -> list[Row]:
    return [
        Row(
            record.file_name,
            str(index.label_to_category[label]),
            _region(index, record, box, config),
        )
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    ]


def _region(
    index: CocoIndex, record: ImageRecord, box: list[float], config: INaturalistBoxesConfig
) -> Region:
    left, top, right, bottom = enlarged(box, config.context, record.width, record.height)
    if left >= right or top >= bottom:
        raise DataError(
            f"{index.annotation_file}: image {record.id} ({record.file_name}), {record.width} x "
            f"{record.height} pixels, has a box with corners {box} outside the picture; correct "
            f"its bbox or remove the annotation"
        )
    return left, top, right, bottom


def _labels(
    file: Path,
    annotations: list[Any],
    images: dict[int, dict[str, Any]],
    categories: dict[int, str],
) -> dict[int, int]:
    """Category id by image id; every picture has exactly one."""
    labels: dict[int, int] = {}
    for position, entry in enumerate(annotations):
        said: list[int] = []
        for key, known in (("image_id", images), ("category_id", categories)):
            value = coco_file.whole(entry.get(key)) if isinstance(entry, dict) else None
            if not isinstance(value, int) or value not in known:
                raise DataError(
                    f"{file}: annotations[{position}] has {key} {value!r}, which is not listed; "
                    f"add that entry or remove the annotation"
                )
            said.append(value)
        image, category = said
        if labels.setdefault(image, category) != category:
            raise DataError(
                f"{file}: image {image} ({images[image]['file_name']}) has category_id "
                f"{labels[image]} and {category}; keep one annotation per picture"
            )
    for image, entry in images.items():
        if image not in labels:
            raise DataError(
                f"{file}: image {image} ({entry['file_name']}) has no annotation; label it or "
                f"remove it from 'images'"
            )
    return labels


def _by_key(categories: dict[int, str]) -> dict[str, str]:
    return {str(category): name for category, name in categories.items()}
