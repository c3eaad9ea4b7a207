"""The checks between a COCO annotation file and the index: each refusal names what to change.

Every function takes the annotation file's path first, only to name it in its complaint. Where a
``Damage`` is taken, it decides whether a complaint about one picture ends the reading.
"""

import json
import math
import reprlib
from collections import Counter
from collections.abc import Container
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from datamodules.damage import Damage
from datamodules.errors import DataError, MissingSplitError
from datamodules.layouts import split_of
from datamodules.masks import read_segmentation

LARGEST_ID = 2**63 - 1  # what a sample carries of a picture to its score
FARTHEST = 2**24  # pixels; from there on float32 does not tell neighbours apart


class Row(NamedTuple):
    """One annotation: the box (x, y, width, height) in pixels, the area in square pixels, the mask
    as compressed run lengths, empty where masks are not asked for.
    """

    id: int
    box: tuple[float, float, float, float]
    category: int
    crowd: bool
    area: float
    mask: bytes


def read_json(file: Path) -> dict[str, Any]:
    """The file's content, with the three lists of COCO's format."""
    if not file.is_file():
        raise MissingSplitError(
            f"{file}: no such annotation file; check the data's root and the split"
        )
    raw = read_bytes(file)
    try:
        text = raw.decode("utf-8-sig")
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not UTF-8 at byte {error.start} of {len(raw)}; save the annotations as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(_json_complaint(file, text, len(raw), error)) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets
        raise DataError(f"{file}: not readable as JSON: {error}; export the file again") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{file}: the top-level key {key!r} is missing or no list; COCO's format needs "
                f"'images', 'annotations' and 'categories': add it or export the file again"
            )
    return content


def read_bytes(file: Path) -> bytes:
    """What is in a file of the user's."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; allow it to be read") from None


def _json_complaint(file: Path, text: str, size_bytes: int, error: json.JSONDecodeError) -> str:
    body = text.rstrip()
    byte = len(text[: error.pos].encode())
    where = f"{file}: not valid JSON at line {error.lineno}, column {error.colno} (byte {byte})"
    if error.pos >= len(body) or not body.endswith("}"):
        return f"{where}: the file seems cut off, {size_bytes} bytes; copy or download it again"
    return f"{where}: {error.msg}; correct it there or export the file again"


# JSON types of the keys that are read; everything is an integer id or size but these.
TYPES: dict[str, type] = {"name": str, "file_name": str, "bbox": list}
IMAGE_KEYS = ("id", "file_name", "height", "width")
OBJECT_KEYS = ("id", "image_id", "category_id", "bbox")


def whole(value: Any) -> Any:
    """480.0 as an integer, since JSON does not tell them apart; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _field(file: Path, what: str, entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise DataError(
            f"{file}: {what} {reprlib.repr(entry)} is not an object; export the file again"
        )
    if key not in entry:
        raise DataError(
            f"{_named(file, what, entry)} has no {key!r}; add the key or export the file again"
        )
    expected = TYPES.get(key, int)
    value: Any = whole(entry[key]) if expected is int else entry[key]
    if not isinstance(value, expected) or isinstance(value, bool):
        needed = "an integer" if expected is int else f"a {expected.__name__}"
        raise DataError(
            f"{_named(file, what, entry)} has {key} {reprlib.repr(value)}; it must be {needed}"
        )
    if isinstance(value, int) and abs(value) > LARGEST_ID:
        raise DataError(
            f"{_named(file, what, entry)} has {key} {reprlib.repr(value)}; it must fit into 64 bits"
        )
    if isinstance(value, str) and not value.isascii() and not _is_text(value):
        raise DataError(
            f"{_named(file, what, entry)} has {key} {value!a}, which is no text; write it in UTF-8"
        )
    return value


def _named(file: Path, what: str, entry: dict[str, Any]) -> str:
    shown = reprlib.repr(entry["id"]) if "id" in entry else "(without id)"
    return f"{file}: {what} {shown}"


def _is_text(value: str) -> bool:
    """Whether it can be written; JSON can name half of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def categories(file: Path, entries: list[dict[str, Any]]) -> dict[int, str]:
    """Names by category id, sorted by id. A name that repeats, as where an export lists a group of
    classes beside a class of its name, is followed by the id.
    """
    pairs = [
        (_field(file, "category", e, "id"), _field(file, "category", e, "name")) for e in entries
    ]
    if not pairs:
        raise DataError(f"{file}: 'categories' is empty; list at least one category")
    _refuse_repeats(file, "categories", [category for category, _ in pairs])
    counts = Counter(name for _, name in pairs)
    return {
        category: name if counts[name] == 1 else f"{name} ({category})"
        for category, name in sorted(pairs)
    }


def image_entries(
    file: Path, entries: list[dict[str, Any]], damage: Damage | None = None
) -> dict[int, dict[str, Any]]:
    """What is read of the entries of 'images', by image id."""
    damage, images = damage or Damage(), []
    for entry in entries:
        try:
            images.append(_image(file, entry))
        except DataError as error:
            damage.take(error)
    _refuse_repeats(file, "images", [image["id"] for image in images])
    return {image["id"]: image for image in images}


def _image(file: Path, entry: Any) -> dict[str, Any]:
    image = {key: _field(file, "image", entry, key) for key in IMAGE_KEYS}
    if not PurePosixPath(image["file_name"]).name:
        raise DataError(
            f"{file}: image {image['id']} has file_name {image['file_name']!r}, which names no "
            f"file; enter the picture's"
        )
    for key in ("height", "width"):
        if image[key] <= 0:
            raise DataError(
                f"{file}: image {image['id']} ({image['file_name']}) has {key} "
                f"{image[key]}; enter the picture's true size"
            )
    return image


def part_of(file: Path, images: dict[int, dict[str, Any]], part: str) -> dict[int, dict[str, Any]]:
    """The pictures of the split ``part``, by their names, of a file that holds several splits."""
    said = {image_id: split_of(entry["file_name"]) for image_id, entry in images.items()}
    silent = [images[image_id]["file_name"] for image_id, split in said.items() if not split]
    if silent:
        raise DataError(
            f"{file}: {len(silent)} of {len(images)} pictures do not say their split: "
            f"{', '.join(silent[:3])}{', …' if len(silent) > 3 else ''}; name them train/… and "
            f"val/…, or write one annotation file per split, annotations/{{train,val}}.json"
        )
    kept = {image_id: entry for image_id, entry in images.items() if said[image_id] == part}
    if not kept:
        raise DataError(
            f"{file}: no picture's name says split {part!r}; the names say "
            f"{', '.join(sorted(set(said.values()))) or 'nothing'}; name some {part}/…, or write "
            f"one annotation file per split, annotations/{{train,val}}.json"
        )
    return kept


def _refuse_repeats(file: Path, key: str, ids: list[int]) -> None:
    seen: set[int] = set()
    for value in ids:
        if value in seen:
            raise DataError(f"{file}: {key!r} has id {value} twice; give every entry its own id")
        seen.add(value)


def picture_sizes(
    file: Path, image_dir: Path, entries: dict[int, dict[str, Any]], damage: Damage
) -> dict[int, int]:
    """Bytes of every picture file, by image id."""
    sizes: dict[int, int] = {}
    missing: list[int] = []
    for image_id, entry in entries.items():
        try:
            sizes[image_id] = (image_dir / entry["file_name"]).stat().st_size
        except (OSError, ValueError):  # also a name that no file can have
            missing.append(image_id)
    if missing and damage.on_error == "raise":
        names = [entries[image_id]["file_name"] for image_id in missing]
        raise DataError(
            f"{file}: {len(missing)} of {len(entries)} pictures are missing in {image_dir}: "
            f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}; "
            f"add the files or remove their entries from 'images'"
        )
    for image_id in missing:
        damage.take(DataError(f"{image_dir / entries[image_id]['file_name']}: missing"), image_id)
    return sizes


def objects_by_image(
    file: Path,
    annotations: list[dict[str, Any]],
    images: dict[int, dict[str, Any]],
    category_ids: set[int],
    *,
    drop_flat: bool,
    masks: bool,
    damage: Damage | None = None,
) -> dict[int, list[Row]]:
    """The objects by image id. ``drop_flat`` leaves out boxes without area instead of refusing;
    ``masks`` reads the segmentations too.
    """
    damage = damage or Damage()
    checked: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for given in annotations:
        try:
            entry = {key: _field(file, "annotation", given, key) for key in OBJECT_KEYS}
        except DataError as error:
            damage.take(error, given.get("image_id") if isinstance(given, dict) else None)
        else:
            checked.append((entry, given))
    _refuse_repeats(file, "annotations", [entry["id"] for entry, _ in checked])
    objects: dict[int, list[Row]] = {}
    for entry, given in checked:
        try:
            _refuse_unlisted(file, entry, "image_id", images)
            _refuse_unlisted(file, entry, "category_id", category_ids)
            row = _row(file, entry, given, images[entry["image_id"]], drop_flat, masks)
        except DataError as error:
            damage.take(error, entry["image_id"])
            continue
        if row is not None:
            objects.setdefault(entry["image_id"], []).append(row)
    return objects


def _row(
    file: Path,
    entry: dict[str, Any],
    given: dict[str, Any],
    image: dict[str, Any],
    drop_flat: bool,
    masks: bool,
) -> Row | None:
    """One annotation; None for a box without area where ``drop_flat`` allows it."""
    box = _box(file, entry, image["file_name"], drop_flat)
    if box is None:
        return None
    area, size = given.get("area"), (image["height"], image["width"])
    if not isinstance(area, int | float):
        area = box[2] * box[3]
    elif not 0 <= area <= FARTHEST**2:  # which NaN is not, either
        raise DataError(
            f"{file}: annotation {entry['id']} on {image['file_name']} has area "
            f"{reprlib.repr(area)}; give square pixels, or leave it out for the box's"
        )
    return Row(
        id=entry["id"],
        box=box,
        category=entry["category_id"],
        crowd=_is_crowd(file, entry, given.get("iscrowd", 0)),
        area=area,
        mask=read_segmentation(file, given, image["file_name"], size) if masks else b"",
    )


def _is_crowd(file: Path, entry: dict[str, Any], value: Any) -> bool:
    if isinstance(value, bool | int | float | None) and value in (0, 1, None):
        return bool(value)
    raise DataError(
        f"{file}: annotation {entry['id']} has iscrowd {reprlib.repr(value)}; write 1 for a crowd, "
        f"else 0"
    )


def _refuse_unlisted(file: Path, entry: dict[str, Any], key: str, listed: Container[int]) -> None:
    if entry[key] not in listed:
        raise DataError(
            f"{file}: annotation {entry['id']} has {key} {entry[key]}, which is not listed; "
            f"add that entry or remove the annotation"
        )


def _box(
    file: Path, entry: dict[str, Any], file_name: str, drop_flat: bool
) -> tuple[float, float, float, float] | None:
    """x, y, width, height; None for a box without area where ``drop_flat`` allows it."""
    box = entry["bbox"]
    where = f"{file}: annotation {entry['id']} on {file_name} has bbox {reprlib.repr(box)}"
    if len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        raise DataError(f"{where}; write it as four numbers [x, y, width, height]")
    if any(FARTHEST < abs(v) < math.inf for v in box):
        raise DataError(f"{where}, outside of any picture; write it in pixels of this picture")
    if all(map(math.isfinite, box)) and box[2] > 0 and box[3] > 0:
        return box[0], box[1], box[2], box[3]
    if drop_flat:
        return None
    raise DataError(
        f"{where}, a box without area; correct its width and height or remove the annotation"
    )
