"""Folders in the layouts of COCO, ImageNet and iNaturalist, with a few tiny pictures each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SPLITS = {"train": 4, "val": 2}
SIDE = 64


def write_coco(folder: Path) -> Path:
    """Pictures with two rectangles each, of the categories 1 and 90, outlined as masks too."""
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    categories = [{"id": i, "name": f"thing {i}"} for i in (1, 90)]
    for split, count in SPLITS.items():
        images, annotations = [], list[dict[str, Any]]()
        for number in range(count):
            name = f"{number}.png"
            _draw(folder / f"{split}2017" / name, rng)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            for k, category in enumerate((1, 90)):
                x, y, w, h = 4 + 20 * k, 6, 18, 30
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                found = {"id": 2 * number + k + 1, "image_id": number, "category_id": category}
                found |= {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                annotations.append(found | {"segmentation": [outline]})
        body = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(body))
    return folder


def write_imagenet(folder: Path) -> Path:
    """Two classes as folders."""
    rng = np.random.default_rng(1)
    for split, count in SPLITS.items():
        for number in range(count):
            _draw(folder / split / f"n0{number % 2}" / f"{number}.png", rng)
    return folder


def write_inaturalist(folder: Path) -> Path:
    """Two species, one annotation file per split."""
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True)
    categories = [{"id": i, "name": f"species {i}"} for i in range(2)]
    for split, count in SPLITS.items():
        images, annotations = [], []
        for number in range(count):
            name = f"train_val_images/{split}{number}.png"
            _draw(folder / name, rng)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            found = {"id": number, "image_id": number, "category_id": number % 2}
            annotations.append(found)
        body = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}2017.json").write_text(json.dumps(body))
    return folder


def _draw(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
