"""A folder of photographs in COCO's format, to be read by whoever wants to be timed: the two that
scikit-learn brings, in several crops, as JPEG files of 640 x 480 pixels with a few boxes each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

SIZE = (640, 480)  # width, height
QUALITY = 90
BOXES = 7
SPLITS = ("train", "val")


def write_photographs(folder: Path, count: int) -> None:
    """Write `count` pictures and their annotations; both splits list all of them."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    (folder / "images").mkdir()
    (folder / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        name = f"{number}.jpg"
        shown = _crop(photographs[number % len(photographs)], rng)
        shown.save(folder / "images" / name, quality=QUALITY)
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for x, y, width, height in _boxes(rng):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(rng.integers(1, 3)),
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    body = {"images": images, "annotations": annotations, "categories": categories}
    for split in SPLITS:
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(body))


def _crop(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Nine tenths of a photograph, somewhere, at the size wanted."""
    width, height = (round(0.9 * side) for side in photograph.size)
    left, top = rng.integers(0, [photograph.width - width, photograph.height - height]).tolist()
    return photograph.resize(SIZE, box=(left, top, left + width, top + height))


def _boxes(rng: np.random.Generator) -> list[list[int]]:
    """x, y, width and height of each box in whole pixels."""
    sides = np.exp(rng.uniform(np.log(16), np.log(400), (BOXES, 2))).astype(int)
    near = (rng.random((BOXES, 2)) * (np.array(SIZE) - sides)).astype(int)
    listed: list[list[int]] = np.concatenate([near, sides], axis=1).tolist()
    return listed
