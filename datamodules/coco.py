"""Annotations in COCO's format, read once and checked at the door.

``read_coco`` turns one annotation file into a ``CocoIndex``: per picture the boxes as corners, the
labels, the crowd flags and the areas, in the order of image ids and annotation ids, so that nothing
downstream depends on how the file happened to be sorted. Crowd regions stay in the index, because
scoring ignores detections inside them; the training targets leave them out. Pictures without any
object stay too: they are legitimate negatives.

Masks are read on request only: rasterising every polygon of a large set takes a while, and a set
without masks is a good one for detectors of boxes.

Label 0 is the background. COCO itself keeps its category ids as labels (91 classes with the gaps,
as the official head has); any other data set gets 1..K in the order of its category ids.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules import coco_file
from datamodules.damage import Damage, OnError, unreadable
from datamodules.errors import DataError

COCO_IDS = frozenset(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One picture and what is annotated on it; n objects in the order of annotation ids.

    boxes are float32 [n, 4] corners (x1, y1, x2, y2) in pixels of the stored picture, labels int64
    [n], iscrowd bool [n], area float32 [n] in square pixels (of the mask where there is one). masks
    are n compressed run lengths (``masks.decode`` gives the pixels), None where they were not read.
    """

    id: int
    file_name: str
    height: int
    width: int
    size_bytes: int
    boxes: np.ndarray
    labels: np.ndarray
    iscrowd: np.ndarray
    area: np.ndarray
    masks: tuple[bytes, ...] | None = None

    @property
    def targets(self) -> int:
        """How many objects a training target can have: crowds do not count."""
        return int((~self.iscrowd).sum())


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """What an annotation file says. ``images`` is sorted by image id, ``categories`` by id;
    ``left_out`` has a complaint about each damaged picture that is not among them.
    """

    annotation_file: Path
    image_dir: Path
    images: tuple[ImageRecord, ...]
    categories: dict[int, str]
    left_out: tuple[str, ...] = ()

    @cached_property
    def label_to_category(self) -> dict[int, int]:
        return {label: category for category, label in label_map(self.categories).items()}

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Names by label; the background has none."""
        return {label: self.categories[c] for label, c in self.label_to_category.items()}

    @property
    def num_classes(self) -> int:
        """Classes including the background: the largest label + 1."""
        return max(self.label_to_category) + 1

    @property
    def has_masks(self) -> bool:
        """Whether the masks were read."""
        return any(image.masks is not None for image in self.images)

    def path(self, record: ImageRecord) -> Path:
        return self.image_dir / record.file_name


def label_map(categories: Iterable[int]) -> dict[int, int]:
    """Category id -> label."""
    ids = sorted(categories)
    if set(ids) == COCO_IDS:
        return {category: category for category in ids}
    return {category: label for label, category in enumerate(ids, start=1)}


def read_coco(
    annotation_file: Path,
    image_dir: Path,
    part: str = "",
    *,
    masks: bool = False,
    on_error: OnError = "raise",
) -> CocoIndex:
    """Read and check one annotation file and the presence of every picture it names.

    ``part`` takes only the pictures whose names say this split, of a file that holds several. With
    ``masks`` every annotation must have a 'segmentation'. ``on_error`` "skip" leaves out pictures
    whose entry, file or annotation is damaged; what is wrong with the whole file is refused.
    """
    damage = Damage(on_error)
    content = coco_file.read_json(annotation_file)
    categories = coco_file.categories(annotation_file, content["categories"])
    entries = coco_file.image_entries(annotation_file, content["images"], damage)
    kept = coco_file.part_of(annotation_file, entries, part) if part else entries
    sizes = coco_file.picture_sizes(annotation_file, image_dir, kept, damage)
    # COCO's own train2017 holds two boxes of height 0, which the official parser drops in silence.
    drop_flat = set(categories) == COCO_IDS
    objects = coco_file.objects_by_image(
        annotation_file,
        content["annotations"],
        entries,
        set(categories),
        drop_flat=drop_flat,
        masks=masks,
        damage=damage,
    )
    labels = label_map(categories)
    images = tuple(
        ImageRecord(
            id=image_id,
            file_name=entries[image_id]["file_name"],
            height=entries[image_id]["height"],
            width=entries[image_id]["width"],
            size_bytes=sizes[image_id],
            **_objects(objects.get(image_id, []), labels, masks),
        )
        for image_id in sorted(kept)
        if damage.spares(image_id)
    )
    left_out = tuple(
        said
        for picture, said in damage.complaints.items()
        if picture in kept or picture not in entries
    )
    return CocoIndex(annotation_file, image_dir, images, categories, left_out)


def without_unreadable(index: CocoIndex, read: Callable[[ImageRecord], object]) -> CocoIndex:
    """The index without the pictures that ``read`` cannot decode; all are tried."""
    bad = unreadable(index.images, read)
    images = tuple(record for i, record in enumerate(index.images) if i not in bad)
    return replace(index, images=images, left_out=(*index.left_out, *bad.values()))


def fingerprint(index: CocoIndex) -> str:
    """SHA-256 of what the annotations say and of the size of every picture file.

    Independent of where the folder lies and of how the JSON was formatted or sorted. Masks count
    where they were read.
    """
    digest = hashlib.sha256(json.dumps(sorted(index.categories.items())).encode())
    for image in index.images:
        head = [image.id, image.file_name, image.height, image.width, image.size_bytes]
        digest.update(json.dumps([*head, image.targets, len(image.labels)]).encode())
        for values in (image.boxes, image.labels, image.iscrowd, image.area):
            digest.update(values.astype("<f4").tobytes())
        for mask in image.masks or ():
            digest.update(mask + b"\n")
    return digest.hexdigest()


def refuse_unlike(train: CocoIndex, val: CocoIndex) -> None:
    """Raise DataError where the splits do not list the same categories."""
    if train.categories != val.categories:
        raise DataError(
            f"{val.annotation_file}: 'categories' differ from {train.annotation_file}; "
            f"both splits must list the same ids and names"
        )


def refuse_unseen(train: CocoIndex, val: CocoIndex) -> None:
    """Raise DataError where validation asks for classes that training never shows."""
    shown, asked = (
        {label for image in split.images for label in image.labels[~image.iscrowd].tolist()}
        for split in (train, val)
    )
    if unseen := sorted(asked - shown):
        names = ", ".join(repr(val.class_names[label]) for label in unseen[:5])
        raise DataError(
            f"{val.annotation_file}: {len(unseen)} of {len(asked)} classes have objects here and "
            f"none in training ({train.annotation_file}): {names}{', …' if unseen[5:] else ''}; "
            f"annotate some in training, or remove these classes from both files"
        )


def _objects(rows: list[coco_file.Row], labels: dict[int, int], masks: bool) -> dict[str, Any]:
    """The fields of an ``ImageRecord`` that speak of its objects."""
    rows = sorted(rows)
    xywh = np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4)
    return {
        "boxes": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype("f4"),
        "labels": np.array([labels[row.category] for row in rows], dtype=np.int64),
        "iscrowd": np.array([row.crowd for row in rows], dtype=bool),
        "area": np.array([row.area for row in rows], dtype=np.float32),
        "masks": tuple(row.mask for row in rows) if masks else None,
    }
