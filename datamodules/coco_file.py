"""The checks between a COCO annotation file and the index: each refusal names what to change.

Every function takes the annotation file's path first, only to name it in its complaint.
"""

import json
import math
from pathlib import Path
from typing import Any

from datamodules.errors import DataError

Row = tuple[int, float, float, float, float, int, bool, float]
"""Annotation id, x, y, width, height (pixels), category id, crowd flag, area (square pixels)."""


def read_json(file: Path) -> dict[str, Any]:
    """The file's content, with the three lists of COCO's format."""
    if not file.is_file():
        raise DataError(f"{file}: no such annotation file; check the data's root and the split")
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8")
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not UTF-8 at byte {error.start} of {len(raw)}; save the annotations as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(_json_complaint(file, text, len(raw), error)) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{file}: the top-level key {key!r} is missing or no list; COCO's format needs "
                f"'images', 'annotations' and 'categories': add it or export the file again"
            )
    return content


def _json_complaint(file: Path, text: str, size_bytes: int, error: json.JSONDecodeError) -> str:
    body = text.rstrip()
    byte = len(text[: error.pos].encode())
    where = f"{file}: not valid JSON at line {error.lineno}, column {error.colno} (byte {byte})"
    if error.pos >= len(body) or not body.endswith("}"):
        return f"{where}: the file seems cut off, {size_bytes} bytes; copy or download it again"
    return f"{where}: {error.msg}; correct it there or export the file again"


# JSON types of the keys that are read; everything is an integer id or size but these.
TYPES: dict[str, type] = {"name": str, "file_name": str, "bbox": list}


def _field(file: Path, what: str, entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise DataError(f"{file}: {what} {entry!r} is not an object; export the file again")
    if key not in entry:
        raise DataError(
            f"{file}: {what} {entry.get('id', '(without id)')} has no {key!r}; "
            f"add the key or export the file again"
        )
    value, expected = entry[key], TYPES.get(key, int)
    if not isinstance(value, expected) or isinstance(value, bool):
        raise DataError(
            f"{file}: {what} {entry.get('id', '(without id)')} has {key} {value!r}; "
            f"it must be {'a number' if expected is int else f'a {expected.__name__}'}"
        )
    return value


def categories(file: Path, entries: list[dict[str, Any]]) -> dict[int, str]:
    """Names by category id, sorted by id."""
    pairs = [
        (_field(file, "category", e, "id"), _field(file, "category", e, "name")) for e in entries
    ]
    if not pairs:
        raise DataError(f"{file}: 'categories' is empty; list at least one category")
    _refuse_repeats(file, "categories", [category for category, _ in pairs])
    return {int(category): str(name) for category, name in sorted(pairs)}


def image_entries(file: Path, entries: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The entries of 'images' by image id."""
    for entry in entries:
        for key in ("id", "file_name"):
            _field(file, "image", entry, key)
        for key in ("height", "width"):
            if not _field(file, "image", entry, key) > 0:
                raise DataError(
                    f"{file}: image {entry['id']} ({entry['file_name']}) has {key} "
                    f"{entry[key]}; enter the picture's true size"
                )
    _refuse_repeats(file, "images", [entry["id"] for entry in entries])
    return {entry["id"]: entry for entry in entries}


def _refuse_repeats(file: Path, key: str, ids: list[int]) -> None:
    seen: set[int] = set()
    for value in ids:
        if value in seen:
            raise DataError(f"{file}: {key!r} has id {value} twice; give every entry its own id")
        seen.add(value)


def picture_sizes(
    file: Path, image_dir: Path, entries: dict[int, dict[str, Any]]
) -> dict[int, int]:
    """Bytes of every picture file, by image id."""
    sizes, missing = {}, []
    for image_id, entry in entries.items():
        try:
            sizes[image_id] = (image_dir / entry["file_name"]).stat().st_size
        except OSError:
            missing.append(entry["file_name"])
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(entries)} pictures are missing in {image_dir}: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}; "
            f"add the files or remove their entries from 'images'"
        )
    return sizes


def objects_by_image(
    file: Path,
    annotations: list[dict[str, Any]],
    images: dict[int, dict[str, Any]],
    category_ids: set[int],
    drop_flat: bool,
) -> dict[int, list[Row]]:
    """The objects by image id. ``drop_flat`` leaves out boxes without area instead of refusing."""
    objects: dict[int, list[Row]] = {}
    for entry in annotations:
        for key in ("id", "image_id", "category_id", "bbox"):
            _field(file, "annotation", entry, key)
    _refuse_repeats(file, "annotations", [entry["id"] for entry in annotations])
    for entry in annotations:
        number, image_id, category = entry["id"], entry["image_id"], entry["category_id"]
        for key, value, known in (
            ("image_id", image_id, images),
            ("category_id", category, category_ids),
        ):
            if value not in known:
                raise DataError(
                    f"{file}: annotation {number} has {key} {value}, which is not listed; "
                    f"add that entry or remove the annotation"
                )
        box = _box(file, entry, images[image_id]["file_name"])
        if not (box[2] > 0 and box[3] > 0):
            if drop_flat:
                continue
            raise DataError(
                f"{file}: annotation {number} on {images[image_id]['file_name']} has bbox "
                f"{entry['bbox']}, a box without area; correct its width and height or remove "
                f"the annotation"
            )
        area = entry.get("area")
        area = area if isinstance(area, int | float) else box[2] * box[3]
        row = (number, *box, category, bool(entry.get("iscrowd", 0)), area)
        objects.setdefault(image_id, []).append(row)
    return objects


def _box(file: Path, entry: dict[str, Any], file_name: str) -> list[float]:
    """x, y, width, height; NaN becomes the error of a box without area."""
    box = entry["bbox"]
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box):
        return box if all(map(math.isfinite, box)) else [0.0, 0.0, 0.0, 0.0]
    raise DataError(
        f"{file}: annotation {entry['id']} on {file_name} has bbox {box}; "
        f"write it as four numbers [x, y, width, height]"
    )
