"""Instance masks as COCO's annotations write them: polygons, or run lengths plain or compressed.

Whatever the file has becomes the bytes of COCO's compressed run lengths (RLE), a few hundred for an
object whose decoded mask fills the whole picture; a sample decodes what it needs. Polygons are
rasterised by pycocotools, and run lengths are checked before pycocotools sees them, because it
reads and leaves memory undefined where they do not add up to the picture.

Sizes are (height, width); runs go down the columns and start with the background.
"""

import math
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.errors import DataError

LONGEST_RUN = 2**32 - 1
LONGEST_CODE = 7  # groups of five bits, enough for the longest run


def encode(mask: np.ndarray) -> bytes:
    """bool or uint8 [height, width] -> compressed run lengths."""
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts


def decode(counts: bytes, size: tuple[int, int]) -> np.ndarray:
    """Compressed run lengths -> uint8 [height, width] of 0 and 1."""
    mask: np.ndarray = coco_mask.decode({"size": list(size), "counts": counts})
    return mask


def rle(counts: bytes, size: tuple[int, int]) -> dict[str, Any]:
    """A mask as COCO's JSON writes it."""
    return {"size": list(size), "counts": counts.decode()}


def read_segmentation(
    file: Path, entry: dict[str, Any], file_name: str, size: tuple[int, int]
) -> bytes:
    """The compressed run lengths of an annotation's 'segmentation'.

    ``file`` and ``file_name`` (the picture's) only serve to say where a complaint comes from.
    """
    where = f"{file}: annotation {entry['id']} on {file_name}"
    segmentation = entry.get("segmentation")
    if not segmentation:
        raise DataError(
            f"{where} has no 'segmentation', and masks are asked for; add its polygons or its RLE, "
            f"or train a detector that needs boxes only"
        )
    if isinstance(segmentation, list):
        return _from_polygons(where, segmentation, size)
    if isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys():
        return _from_rle(where, segmentation, size)
    raise DataError(
        f"{where} has segmentation {reprlib.repr(segmentation)}; write a list of polygons, or an "
        f"RLE with 'size' and 'counts'"
    )


def _from_polygons(where: str, polygons: list[Any], size: tuple[int, int]) -> bytes:
    for polygon in polygons:
        if not isinstance(polygon, list):
            raise DataError(
                f"{where} has segmentation {reprlib.repr(polygons)}; write a list of polygons, "
                f"[[x1, y1, x2, y2, x3, y3, …], …], also when there is only one"
            )
        shown = f"{where} has a polygon of {len(polygon)} numbers, {reprlib.repr(polygon)}"
        if len(polygon) < 6 or len(polygon) % 2:
            raise DataError(
                f"{shown}, in 'segmentation'; write x and y of at least three corners, or remove "
                f"the polygon"
            )
        if not all(isinstance(v, int | float) and abs(v) < LONGEST_RUN for v in polygon):
            raise DataError(f"{shown}, not all of them numbers; write x and y of each corner")
        # pycocotools walks along every edge, so a corner far away takes all memory.
        for values, extent in ((polygon[0::2], size[1]), (polygon[1::2], size[0])):
            if min(values) < -extent or max(values) > 2 * extent:
                raise DataError(
                    f"{shown}, that reaches from {min(values)} to {max(values)} where the picture "
                    f"has {extent} pixels; write corners in pixels of this picture"
                )
    counts: bytes = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))["counts"]
    return counts


def _from_rle(where: str, segmentation: dict[str, Any], size: tuple[int, int]) -> bytes:
    stated, counts = segmentation["size"], segmentation["counts"]
    if stated != list(size):
        raise DataError(
            f"{where} has an RLE of size {reprlib.repr(stated)}, but the picture is {list(size)} "
            f"(height, width); encode the mask of the picture as stored"
        )
    try:
        compressed = isinstance(counts, str)
        lengths = run_lengths(counts.encode()) if compressed else _plain_lengths(counts)
    except ValueError as error:
        raise DataError(
            f"{where} has RLE counts {reprlib.repr(counts)}: {error}; export the mask again"
        ) from None
    if (total := int(lengths.sum())) != math.prod(size):
        raise DataError(
            f"{where} has RLE counts for {total} pixels, but the picture has {math.prod(size)}; "
            f"export the mask again"
        )
    if compressed:
        return str(counts).encode()
    plain = {"size": list(size), "counts": lengths.tolist()}
    encoded: bytes = coco_mask.frPyObjects(plain, *size)["counts"]
    return encoded


def _plain_lengths(counts: Any) -> np.ndarray:
    if not isinstance(counts, list) or not all(
        isinstance(c, int | float) and 0 <= c <= LONGEST_RUN and c == int(c) for c in counts
    ):
        raise ValueError("neither a string nor a list of lengths")
    return np.array(counts, dtype=np.int64)


def run_lengths(counts: bytes) -> np.ndarray:
    """The lengths that a compressed RLE holds; raises ValueError where it is none.

    A number is written in groups of five bits, lowest first, as characters from "0" on: bit 5 says
    that another group follows, bit 4 of the last group is the sign. From the fourth number on it is
    the difference to the number two before.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    if not len(codes) or ((codes < 0) | (codes > 63)).any() or codes[-1] & 32:
        raise ValueError("no compressed RLE")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    groups = last - first + 1
    if groups.max() > LONGEST_CODE:
        raise ValueError("no compressed RLE")
    place = np.arange(len(codes)) - np.repeat(first, groups)
    lengths = np.add.reduceat((codes & 31) << 5 * place, first)
    lengths -= np.where(codes[last] & 16, 1 << 5 * groups, 0)
    for start in (1, 2):
        lengths[start::2] = lengths[start::2].cumsum()
    if (lengths < 0).any():
        raise ValueError("no compressed RLE")
    return lengths
