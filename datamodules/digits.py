"""The embedded data set `digits`: drawn at first use, written as ordinary COCO files.

The paper's claim is about scale, so this set has what a small study of it needs: real handwriting
at object sizes spread evenly in octaves, on real photographs, without a download. Every picture has
its own generator seeded by (seed, split, number), so it depends neither on the others nor on how
many there are.

Two numbers say what a stored set is. ``DRAWING_VERSION`` is part of its identity, so of every run
id: raise it when a picture or a box changes. ``FILES_VERSION`` is part of its folder's name only:
raise it when the files say more about the same drawing. An older folder then stays as it is, for
whoever is reading it, and the set is drawn again beside it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from datamodules.digits_scene import SPLITS, PlacedDigit, draw_scene, sources
from datamodules.drawn import cache_folder, drawing_fingerprint, drawn_once
from datamodules.errors import DataError
from datamodules.masks import rle

DRAWING_VERSION = 2
FILES_VERSION = 2  # 2: annotations have a 'segmentation'
Progress = Callable[[int, int], None]
"""Called with (pictures drawn, pictures in all)."""


@dataclass(frozen=True)
class DigitsConfig:
    """Which digits to draw."""

    kind: Literal["digits"] = "digits"
    train_images: int = 4000
    val_images: int = 800
    side: int = 128
    """Height and width of a picture, in pixels."""
    min_size: float = 10
    """Smallest longer side of a digit's ink, in pixels."""
    max_size: float = 112
    """Largest longer side of a digit's ink, in pixels."""
    max_objects: int = 6
    """Each picture has 1 to this many digits."""
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("train_images", "val_images", "max_objects"):
            if getattr(self, key) < 1:
                raise DataError(f"digits: {key} is {getattr(self, key)}; give at least 1")
        if self.seed < 0:
            raise DataError(f"digits: seed is {self.seed}; give 0 or more")
        if not 4 <= self.min_size <= self.max_size <= self.side:
            raise DataError(
                f"digits: min_size {self.min_size}, max_size {self.max_size}, side {self.side}; "
                f"give 4 <= min_size <= max_size <= side"
            )


def digits_fingerprint(config: DigitsConfig) -> str:
    """SHA-256 of what decides the drawing; known without drawing."""
    return drawing_fingerprint(config, DRAWING_VERSION)


def prepare(
    config: DigitsConfig, cache_dir: Path | None = None, on_progress: Progress | None = None
) -> Path:
    """The folder with the drawn set; draws it when it is missing."""
    folder = drawn_folder(config, cache_dir)
    return drawn_once(folder, lambda unfinished: draw(config, unfinished, on_progress))


def drawn_folder(config: DigitsConfig, cache_dir: Path | None = None) -> Path:
    """Where the drawn set is, or will be."""
    name = f"digits-{digits_fingerprint(config)[:12]}-v{FILES_VERSION}"
    return (cache_dir or cache_folder()) / name


def draw(config: DigitsConfig, folder: Path, on_progress: Progress | None = None) -> None:
    """Draw both splits into ``folder``: images/ and annotations/instances_{train,val}.json."""
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    counts = {"train": config.train_images, "val": config.val_images}
    done, total = 0, sum(counts.values())
    for split in SPLITS:
        scenes: dict[str, list[PlacedDigit]] = {}
        for number in range(counts[split]):
            pixels, digits = draw_picture(config, split, number)
            name = f"{split}_{number:06d}.jpg"
            # Four times smaller than PNG on photographs and faster to decode; quality 95 without
            # chroma subsampling keeps thin coloured strokes clean.
            Image.fromarray(pixels).save(folder / "images" / name, quality=95, subsampling=0)
            scenes[name] = digits
            done += 1
            if on_progress is not None:
                on_progress(done, total)
        content = json.dumps(_coco(config, scenes))
        (folder / "annotations" / f"instances_{split}.json").write_text(content)


def draw_picture(
    config: DigitsConfig, split: str, number: int
) -> tuple[np.ndarray, list[PlacedDigit]]:
    """Picture ``number`` of ``split``: uint8 [side, side, 3] and what is on it."""
    return draw_scene(
        sources(config.seed, split),
        np.random.default_rng((config.seed, SPLITS.index(split), number)),
        side=config.side,
        sizes=(config.min_size, config.max_size),
        max_objects=config.max_objects,
    )


def _coco(config: DigitsConfig, scenes: dict[str, list[PlacedDigit]]) -> dict[str, Any]:
    annotations = [
        {
            "image_id": image_id,
            "category_id": digit.value + 1,
            "bbox": list(digit.box),
            # Of the box, so that a digit's size is its extent, for boxes and masks alike.
            "area": digit.box[2] * digit.box[3],
            "segmentation": rle(digit.mask, (config.side, config.side)),
            "iscrowd": 0,
            "sample_id": digit.sample_id,
        }
        for image_id, digits in enumerate(scenes.values(), start=1)
        for digit in digits
    ]
    return {
        "info": {"description": "digits", "drawing_version": DRAWING_VERSION} | asdict(config),
        "images": [
            {"id": image_id, "file_name": name, "height": config.side, "width": config.side}
            for image_id, name in enumerate(scenes, start=1)
        ],
        "annotations": [{"id": i} | a for i, a in enumerate(annotations, start=1)],
        "categories": [{"id": value + 1, "name": str(value)} for value in range(10)],
    }
