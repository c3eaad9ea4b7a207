"""From a decoded picture to a square network input for classification, as the official recipe does.

Training takes a random crop and stretches it to the input, so that the aspect ratio varies too;
half of the pictures are mirrored. Evaluation takes the central square. The crop is that of
TensorFlow's ``sample_distorted_bounding_box``: aspect ratio and *height* are uniform (libraries in
PyTorch make the area uniform and so cut larger), ten tries, and a crop that is the whole picture
gives way to the central square. Resizing is bilinear without a low-pass filter (TensorFlow Model
Garden: dataloaders/classification_input.py and ops/preprocess_ops.py).

Shapes: an image is [3, height, width]; pairs are (height, width).
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from datamodules.inputs import CropConfig
from datamodules.transforms import MEAN_RGB, STD_RGB

TRIES = 10


@dataclass(frozen=True)
class Crop:
    """The rectangle of the picture that becomes the network input."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def centre_crop(size: tuple[int, int], share: float, *, flip: bool = False) -> Crop:
    """The central square with ``share`` of the shorter side of a picture of ``size``."""
    side = share * min(size)
    top, left = (int((extent - side) / 2) for extent in size)
    whole = max(int(side), 1)
    return Crop(top, left, whole, whole, flip)


def draw_crop(size: tuple[int, int], config: CropConfig, rng: np.random.Generator) -> Crop:
    """A random crop. The coin comes first, so that switching it off leaves the crop as it is."""
    flip = bool(rng.random() < 0.5) and config.flip
    attempts = (_attempt(size, config, rng.random(4), flip) for _ in range(TRIES))
    crop = next((c for c in attempts if c is not None), None)
    if crop is None or (crop.height, crop.width) == size:
        return centre_crop(size, config.centre, flip=flip)
    return crop


def _attempt(
    size: tuple[int, int], config: CropConfig, draws: np.ndarray, flip: bool
) -> Crop | None:
    """A crop from four uniform draws: aspect, height, top, left. None if no such crop fits."""
    low, high = config.aspect
    aspect = low + (high - low) * float(draws[0])
    smallest, largest = (share * size[0] * size[1] for share in config.area)
    widest = int((size[1] + 0.5 - 1e-7) / aspect)  # the height at which the width still fits
    tallest = min(round(math.sqrt(largest / aspect)), widest, size[0])
    shortest = min(round(math.sqrt(smallest / aspect)), tallest)
    height = shortest + int((tallest - shortest + 1) * float(draws[1]))
    # Rounding to pixels may just miss the area; one row more or less mends that.
    if height * round(height * aspect) < smallest:
        height += 1
    elif height * round(height * aspect) > largest:
        height -= 1
    width = round(height * aspect)
    if not (0 < height <= size[0] and 0 < width <= size[1]):
        return None
    if not smallest <= height * width <= largest:
        return None
    top, left = (int((size[0] - height) * draws[2]), int((size[1] - width) * draws[3]))
    return Crop(top, left, height, width, flip)


def crop_image(image: Tensor, crop: Crop, side: int) -> Tensor:
    """uint8 [3, height, width] -> normalised float32 [3, side, side]."""
    rows, columns = (
        slice(crop.top, crop.top + crop.height),
        slice(crop.left, crop.left + crop.width),
    )
    piece = image[:, rows, columns].float().contiguous()
    resized = F.interpolate(piece[None], size=(side, side), mode="bilinear", align_corners=False)[0]
    normalised = (resized - MEAN_RGB) / STD_RGB
    return normalised.flip(-1) if crop.flip else normalised
