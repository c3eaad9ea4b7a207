"""From a decoded picture and its boxes to a square network input, as the official recipe does.

The order: normalise, resize bilinearly with the aspect ratio kept so that the picture fits
``jitter * side``, crop ``side`` at random where it is larger, pad with zeros at the bottom and the
right. Normalising first makes the padding the mean colour. Rounding follows Model Garden
(tf-models-official 2.20.0, ``preprocess_ops.resize_and_crop_image``) in float32, half to even.

Training takes the same way in 8 bits: resizing rounds to whole values, a third of one on average,
takes a fifth of the time, and a quarter of the memory goes to the device, which normalises.
Evaluation keeps the exact way. A picture that already fits comes out the same to the bit.

Shapes: an image is [3, height, width], boxes are [n, 4] corners (x1, y1, x2, y2) in pixels. A mask
is kept as a grid of cells over its placed box, because a network compares it with crops of any
size and place, and whole masks of every object would outweigh the picture.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.inputs import TransformConfig

# ImageNet's statistics, times 255.
MEAN_RGB = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD_RGB = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


@dataclass(frozen=True)
class Placement:
    """Where a picture of ``size`` lands on the network input; pairs are (height, width)."""

    size: tuple[int, int]
    """The picture as stored."""
    resized: tuple[int, int]
    """The whole picture after resizing, before the crop."""
    offset: tuple[int, int]
    """Top and left of the crop in the resized picture."""
    side: int
    flip: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Network pixels per stored pixel; the two differ because ``resized`` is rounded."""
        scale = np.array(self.resized, np.float32) / np.array(self.size, np.float32)
        return float(scale[0]), float(scale[1])

    @property
    def valid(self) -> tuple[int, int]:
        """The part of the network input that is picture rather than padding."""
        height, width = (
            min(r - o, self.side) for r, o in zip(self.resized, self.offset, strict=True)
        )
        return height, width


def place(
    size: tuple[int, int],
    side: int,
    *,
    jitter: float = 1.0,
    crop: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
) -> Placement:
    """Fit ``size`` into ``jitter * side``; ``crop`` places the crop as fractions of the excess."""
    stored = np.array(size, dtype=np.float32)
    target = np.rint(np.float32(jitter) * np.float32(side))
    height, width = np.rint(stored * (target / stored).min()).astype(int).tolist()
    resized = (
        max(height, 1),
        max(width, 1),
    )  # a strip thinner than half a pixel still has to be there
    top, left = (int(max(r - side, 0) * c) for r, c in zip(resized, crop, strict=True))
    return Placement(size=size, resized=resized, offset=(top, left), side=side, flip=flip)


def draw_placement(
    size: tuple[int, int], config: TransformConfig, rng: np.random.Generator
) -> Placement:
    """A random placement. Always takes four draws, so that switching one off leaves the others."""
    coin, scale, top, left = rng.random(4)
    low, high = config.scale_jitter
    return place(
        size,
        config.side,
        jitter=low + (high - low) * scale,
        crop=(top, left),
        flip=config.flip and coin < 0.5,
    )


def place_image(image: Tensor, placement: Placement) -> Tensor:
    """uint8 [3, height, width] -> normalised float32 [3, side, side], as in evaluation."""
    placed = place_pixels(image.float(), placement)
    return normalise(placed[None], torch.tensor([placement.valid]))[0]


def place_pixels(image: Tensor, placement: Placement) -> Tensor:
    """[3, height, width] of 0..255 -> [3, side, side] of the same type, for ``normalise`` on the
    device; zero below and beside the picture, channels last in memory.
    """
    if placement.flip:
        image = image.flip(-1)
    if placement.resized != placement.size:
        # Channels last is several times faster, in 8 bits above all. A batch of one has to be made
        # from its rows: only then is its first stride that of channels last, and so is the result.
        rows = image.permute(1, 2, 0).contiguous()[None]
        batch = rows.permute(0, 3, 1, 2)
        (image,) = F.interpolate(
            batch, size=placement.resized, mode="bilinear", align_corners=False
        )
    (top, left), (height, width) = placement.offset, placement.valid
    canvas = image.new_empty(placement.side, placement.side, 3).permute(2, 0, 1)
    canvas[:, :height, :width] = image[:, top : top + height, left : left + width]
    canvas[:, :height, width:] = 0
    canvas[:, height:] = 0
    return canvas


def normalise(images: Tensor, valid: Tensor) -> Tensor:
    """[B, 3, side, side] of 0..255, of which ``valid`` [B, 2] (height, width) is picture ->
    normalised float32 of the same shape, zero where there is no picture, channels last in memory.

    Normalises after the resizing: bilinear weights sum to one, so that equals the official order to
    float32 rounding.
    """
    side = images.shape[-1]
    # Row by row, so that mean and deviation are added along what is contiguous in memory.
    rows = images.permute(0, 2, 3, 1).reshape(len(images), side, 3 * side)
    mean, std = (value.flatten().repeat(side).to(images.device) for value in (MEAN_RGB, STD_RGB))
    # The first of these makes a copy of its own, which the subtraction may overwrite.
    centred = rows.float().sub_(mean) if images.dtype == torch.uint8 else rows - mean
    normalised = centred.div_(std)
    if images.is_cuda:  # without asking the device for numbers
        cells = torch.arange(side, device=images.device)
        below = cells >= valid[:, 0, None]
        beside = (cells >= valid[:, 1, None]).repeat_interleave(3, dim=1)
        normalised.masked_fill_(below[:, :, None] | beside[:, None, :], 0.0)
    else:
        for picture, (height, width) in zip(normalised, valid.tolist(), strict=True):
            picture[height:] = 0.0
            picture[:, 3 * width :] = 0.0
    return normalised.view(len(images), side, side, 3).permute(0, 3, 1, 2)


def place_boxes(boxes: Tensor, placement: Placement) -> Tensor:
    """Stored pixels -> pixels of the network input, clipped to the picture. Keeps every row."""
    scale_y, scale_x = placement.scale
    top, left = placement.offset
    x, y = boxes[:, 0::2], boxes[:, 1::2]
    if placement.flip:
        x = placement.size[1] - x.flip(1)
    height, width = placement.valid
    x = (x * scale_x - left).clamp(0, width)
    y = (y * scale_y - top).clamp(0, height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def crop_mask(mask: Tensor, box: Tensor, placement: Placement, cells: int) -> Tensor:
    """The part of a stored mask in a placed box, as uint8 [cells, cells] of 0..255.

    ``mask`` is [height, width] of 0 and 1 as stored, ``box`` [4] as ``place_boxes`` gives it, with
    area. Each cell's centre is traced back to the stored picture and read there bilinearly, so
    that only one interpolation lies between the annotation and the cell. The reading stays a
    fraction of 255: what trains on it samples it once more, and a threshold here would move the
    edge by up to half a cell first.
    """
    centres = (torch.arange(cells) + 0.5) / cells
    top, left = placement.offset
    scale_y, scale_x = placement.scale
    x = (box[0] + centres * (box[2] - box[0]) + left) / scale_x
    y = (box[1] + centres * (box[3] - box[1]) + top) / scale_y
    height, width = placement.size
    if placement.flip:
        x = width - x
    rows, columns = torch.meshgrid(2 * y / height - 1, 2 * x / width - 1, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1)  # in -1..1 from edge to edge of the picture
    read = F.grid_sample(
        mask[None, None].float(), grid[None], padding_mode="border", align_corners=False
    )
    return (read[0, 0] * 255).round().to(torch.uint8)


def has_area(boxes: Tensor) -> Tensor:
    """bool [n]: what a crop has left of the object is more than a line."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
