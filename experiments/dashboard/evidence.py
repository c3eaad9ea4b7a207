"""What a detector found on its validation split, from `detections.json`: curves of precision over
recall, and pictures with annotated and found boxes.

Both need the data that the run was validated on. Where these are not at hand, or are others by now,
the page says so; embedded data are not drawn just to be looked at.
"""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from datamodules import CocoIndex, DataError, DigitsConfig, ImageRecord, SourceConfig, open_source
from datamodules.coco import without_unreadable
from datamodules.damage import OnError
from datamodules.digits import drawn_folder
from datamodules.pictures import decode, read_picture
from experiments.dashboard.charts import Line
from experiments.scoring import precision_by_recall
from experiments.snapshot import FileCache, Run, stamp_of
from experiments.store import Result

PICTURES = 6
SURE = 0.3  # boxes below this score are left out of the pictures
LONGEST = 320  # pixels of a shown picture's longer side
AGAIN_S = 60.0  # after which data that could not be shown are looked at once more


class Unavailable(Exception):  # noqa: N818 - the page's words, not an error of the program
    """Why there is nothing to show, for people."""


@dataclass(frozen=True)
class Box:
    """In pixels of the stored picture; `score` is None for what is annotated."""

    x: float
    y: float
    width: float
    height: float
    name: str
    score: float | None = None


@dataclass(frozen=True)
class Shown:
    """A picture of the validation split with what is on it and what was found."""

    image_id: int
    width: int
    height: int
    boxes: tuple[Box, ...]

    @property
    def description(self) -> str:
        """For who cannot see it."""
        annotated = ", ".join(box.name for box in self.boxes if box.score is None)
        found = ", ".join(box.name for box in self.boxes if box.score is not None)
        return f"{self.image_id}: annotated {annotated or 'nothing'}; found {found or 'nothing'}"


class Evidence:
    """Detections and the data that they are about, each read once."""

    def __init__(self, files: FileCache) -> None:
        self.files = files

    def curves(self, run: Run, result: Result) -> list[Line]:
        """Precision over recall. Raises Unavailable."""
        rows, index = _detections(run), _index(result)
        path = run.folder / "detections.json"
        made = self.files.get(
            "curves", path, stamp_of(path), lambda _: precision_by_recall(index, rows)
        )
        return [Line(name, points) for name, points in made.items()]

    def pictures(self, run: Run, result: Result) -> list[Shown]:
        """Some pictures, evenly spread over the split. Raises Unavailable."""
        rows, index = _detections(run), _index(result)
        chosen = {record.id: record for record in _spread(index)}
        found: dict[int, list[Box]] = {image_id: [] for image_id in chosen}
        for row in rows:
            if row["image_id"] in found and row["score"] >= SURE:
                name = index.categories.get(row["category_id"], "?")
                x, y, width, height = row["bbox"]
                found[row["image_id"]].append(Box(x, y, width, height, name, row["score"]))
        return [
            Shown(r.id, r.width, r.height, (*_annotated(index, r), *found[r.id]))
            for r in chosen.values()
        ]

    def jpeg(self, result: Result, image_id: int) -> bytes:
        """One of the shown pictures. Raises Unavailable for any other."""
        index = _index(result)
        record = next((r for r in _spread(index) if r.id == image_id), None)
        if record is None:
            raise Unavailable(f"picture {image_id} is not shown")
        try:
            pixels = decode(index.path(record), f"picture {image_id}", "leave it out")
        except DataError as error:
            raise Unavailable(str(error)) from None
        picture = Image.fromarray(pixels)
        picture.thumbnail((LONGEST, LONGEST))
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=88)
        return packed.getvalue()


def _detections(run: Run) -> list[dict[str, Any]]:
    path = run.folder / "detections.json"
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_bytes())
        [(row["image_id"], row["category_id"], row["bbox"][3], row["score"]) for row in rows]
    except FileNotFoundError:
        raise Unavailable("detections.json is not kept with this run") from None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise Unavailable(f"detections.json is damaged: {error!r}") from None
    return rows


def _index(result: Result) -> CocoIndex:
    """The validation split that the run was scored on."""
    data, model = result.recipe["data"], result.recipe["model"]
    on_error: OnError = "skip" if data.get("on_error") == "skip" else "raise"
    masks = model["kind"] == "mask-rcnn"
    key = json.dumps(data["source"]), result.data_fingerprint, on_error, masks
    since, reason = _refused.get(key, (-math.inf, ""))
    if time.monotonic() - since < AGAIN_S:
        raise Unavailable(reason)
    try:
        return _opened(*key)
    except Unavailable as error:
        _refused[key] = time.monotonic(), str(error)
        raise


_refused: dict[tuple[str, str, OnError, bool], tuple[float, str]] = {}  # when, and why


@lru_cache(maxsize=4)  # the last data sets looked at; COCO's index is large
def _opened(tree: str, fingerprint: str, on_error: OnError, masks: bool) -> CocoIndex:
    try:
        config: SourceConfig = TypeAdapter(SourceConfig).validate_json(tree)
    except ValidationError:
        raise Unavailable("the data are not of boxes") from None
    if isinstance(config, DigitsConfig) and not drawn_folder(config).is_dir():
        raise Unavailable("these digits are not drawn on this machine; a run on them draws them")
    try:
        source = open_source(config, on_error=on_error, masks=masks)
        if source.fingerprint != fingerprint:
            raise Unavailable("the data have changed since this run")
        index = source.index("val")
        if on_error == "skip":
            index = without_unreadable(index, partial(read_picture, index))
        return index
    except DataError as error:
        raise Unavailable(f"the data cannot be opened: {error}") from None


def _spread(index: CocoIndex) -> list[ImageRecord]:
    places = np.linspace(0, len(index.images) - 1, PICTURES).round().astype(int)
    return [index.images[i] for i in dict.fromkeys(places.tolist())]


def _annotated(index: CocoIndex, record: ImageRecord) -> list[Box]:
    names = index.class_names
    corners = zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    return [Box(a, b, c - a, d - b, names[label]) for (a, b, c, d), label in corners]
