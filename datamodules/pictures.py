"""Reading a picture file as RGB, whatever it was stored as."""

import io
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from datamodules.coco import CocoIndex, ImageRecord
from datamodules.errors import DataError

JPEG_END = b"\xff\xd9"
# What Pillow raises on files that are cut off or are no pictures.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_picture(index: CocoIndex, record: ImageRecord) -> Tensor:
    """uint8 [3, height, width], channels last in memory; grey, palette, RGBA and CMYK become RGB.

    A camera's orientation tag is ignored, as in COCO: boxes count in stored pixels.
    """
    path = index.path(record)
    entry = f"image {record.id} in {index.annotation_file}"
    pixels = decode(path, entry, "remove its entry and its annotations")
    height, width = pixels.shape[:2]
    if (height, width) != (record.height, record.width):
        way_out = "correct the entry, or put back the picture that was annotated"
        if (width, height) == (record.height, record.width) and (tag := _orientation(path)) > 4:
            way_out = (
                f"its orientation tag is {tag}, and boxes count in stored pixels: write the "
                f"rotation into the pixels, or export the boxes of the stored picture"
            )
        raise DataError(
            f"{path} ({entry}) is {width} x {height} pixels, but its entry says width "
            f"{record.width}, height {record.height}; {way_out}"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _orientation(path: Path) -> int:
    """EXIF's orientation: 1 is as stored, above 4 the picture is shown with its sides swapped."""
    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except (*DAMAGED, TypeError):
        return 1


def decode(path: Path, entry: str, removal: str) -> np.ndarray:
    """uint8 [height, width, 3], writable. ``entry`` says where the picture is listed, ``removal``
    how to do without it.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format == "JPEG" and picture.mode in ("RGB", "L"):
                fast = _decode_jpeg(data)
                if fast is not None:
                    return fast
            # Pillow would clip these to 255, so most pictures would turn white unnoticed.
            deep = picture.mode == "F" or picture.mode.startswith("I")
            pixels = None if deep else np.array(picture.convert("RGB"))
    except DAMAGED as error:
        why = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{path} ({entry}) is damaged or no picture: {why}; copy it again, or {removal}"
        ) from error
    if pixels is None:
        raise DataError(
            f"{path} ({entry}) has more than 8 bits per channel; convert it to 8 bits first"
        )
    return pixels


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """uint8 [height, width, 3] by libjpeg-turbo without Pillow around it, which takes twice as long
    to the same pixels; None for a file that is cut off or that only Pillow reads.

    A file without its end marker would come out grey below the cut, with no more than a warning.
    """
    if not data.endswith(JPEG_END):
        return None
    from torchvision.io import ImageReadMode, decode_jpeg  # slow to import, for JPEGs only

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        decoded: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    except RuntimeError:
        return None
    pixels: np.ndarray = decoded.permute(1, 2, 0).numpy()
    return pixels
