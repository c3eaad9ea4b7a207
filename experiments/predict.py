"""Detections on pictures of one's own: drawn, and as JSON in the pictures' pixels.

A picture is taken as a viewer shows it, so its orientation tag is applied first; boxes count in the
upright picture's pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.io import write_png
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from datamodules.masks import decode
from datamodules.pictures import DAMAGED
from datamodules.transforms import place, place_image
from experiments.allocator import keep_freed_memory
from experiments.errors import UserError
from experiments.scoring import to_coco
from experiments.store import write_atomically
from experiments.weights import Weights
from spinenet.detection.config import MaskRCNNConfig, RetinaNetConfig
from spinenet.drawing import FONT
from spinenet.folding import folded

# Okabe and Ito's colours that black letters read on.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7")
READABLE = 640  # pixels of the longer side
WATCHED = 128  # pixels of the input on which a network's norms are folded: a cell of level 7


@dataclass(frozen=True)
class Found:
    """One object as COCO's result format has it, with the class's name: box (x, y, width, height),
    and the mask as run lengths where the network gives masks.
    """

    category_id: int
    name: str
    bbox: list[float]
    score: float
    segmentation: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.score:.2f}"

    def row(self) -> dict[str, Any]:
        """For JSON; an absent mask is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def predict(
    weights: Weights, pictures: Sequence[Path], folder: Path, threshold: float
) -> Iterator[tuple[Path, list[Found]]]:
    """Detect objects above `threshold` in each picture, draw them into `folder`, and write
    `detections.json` there after the last. Yields each picture with what was found, best first.

    Raises UserError that names a picture which is missing or damaged.
    """
    drawings = drawing_files(pictures, folder, "detections")
    config = cast(RetinaNetConfig | MaskRCNNConfig, weights.recipe.model)
    postprocess = replace(config.postprocess, score_threshold=threshold)
    recipe = replace(weights.recipe, model=replace(config, postprocess=postprocess))
    weights = replace(weights, recipe=recipe)
    model = _network(weights)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for path, drawing in zip(pictures, drawings, strict=True):
        pixels = read_upright(path)
        found = _detect(model, weights, pixels)
        write_png(draw(pixels, found), str(drawing))
        height, width = pixels.shape[-2:]
        shown = {"file": str(path), "drawing": drawing.name, "width": width, "height": height}
        rows.append(shown | {"detections": [one.row() for one in found]})
        yield path, found
    write_atomically(folder / "detections.json", json.dumps(rows, indent=1))


def read_upright(path: Path) -> Tensor:
    """uint8 (3, height, width), turned as the orientation tag says. Raises UserError with the name
    of a file that is no picture.
    """
    try:
        with Image.open(path) as picture:
            deep = picture.mode == "F" or picture.mode.startswith("I")  # Pillow would clip these
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except DAMAGED as error:
        raise UserError(
            f"{path}: damaged or no picture: {error}; give a file such as a PNG or JPEG"
        ) from None
    if deep:
        raise UserError(f"{path}: more than 8 bits per channel; convert it to 8 bits first")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def draw(pixels: Tensor, found: Sequence[Found]) -> Tensor:
    """A copy of `pixels`, uint8 (3, H, W), with a box, name, score and mask for each of `found`,
    the best on top. Small pictures are enlarged until the letters leave something to see.
    """
    zoom = max(1, READABLE // max(pixels.shape[-2:]))
    pixels = enlarged(pixels, zoom)
    if not found:
        return pixels
    worst_first = list(reversed(found))
    colours: Any = [COLOURS[one.category_id % len(COLOURS)] for one in worst_first]
    if found[0].segmentation is not None:
        masks = torch.stack([_mask(one) for one in worst_first])
        pixels = draw_segmentation_masks(pixels, enlarged(masks, zoom), 0.5, colours)
    side = max(pixels.shape[-2:])
    boxes = (one.bbox for one in worst_first)
    corners = [(x, y, x + max(w, 0), y + max(h, 0)) for x, y, w, h in boxes]
    return draw_bounding_boxes(
        pixels,
        torch.tensor(corners) * zoom,
        [str(one) for one in worst_first],
        colors=colours,
        width=max(1, side // 300),
        font=str(FONT),
        font_size=max(9, side // 50),
        fill_labels=True,
    )


def enlarged(x: Tensor, zoom: int) -> Tensor:
    """(..., H, W) → (..., zoom * H, zoom * W): each pixel a square."""
    return x.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)


def _mask(one: Found) -> Tensor:
    """bool (H, W) of the picture."""
    lengths = one.segmentation or {}
    height, width = lengths["size"]
    return torch.from_numpy(decode(lengths["counts"].encode(), (height, width))).bool()


def drawing_files(pictures: Sequence[Path], folder: Path, what: str) -> list[Path]:
    """Where each picture's drawing goes: `<picture>.<what>.png`. Raises UserError that names a
    missing picture, before any work.
    """
    for path in pictures:
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no such file"
            raise UserError(f"{path}: {kind}; give pictures, such as holiday/*.jpg")
    drawings = [folder / f"{path.stem}.{what}.png" for path in pictures]
    for path, drawing in zip(pictures, drawings, strict=True):
        if drawings.count(drawing) > 1:
            raise UserError(
                f"{path}: another picture would be drawn to {drawing}, too; rename one, or predict "
                "them into different folders"
            )
    return drawings


def _network(weights: Weights) -> nn.Module:
    """The detector without the norms that its convolutions can carry, on the device at hand."""
    keep_freed_memory()
    watched = torch.zeros(1, 3, WATCHED, WATCHED).contiguous(memory_format=torch.channels_last)
    return folded(weights.network(), watched).to("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def _detect(model: Any, weights: Weights, pixels: Tensor) -> list[Found]:
    size = (pixels.shape[-2], pixels.shape[-1])
    placement = place(size, weights.recipe.data.transform.side)
    device = next(model.parameters()).device
    images = place_image(pixels, placement)[None].to(device, memory_format=torch.channels_last)
    found = model.detect(images, torch.tensor([placement.valid], device=device))
    batch = {
        "image_id": torch.tensor([0]),
        "scale": torch.tensor([placement.scale]),
        "size": torch.tensor([size]),
    }
    categories = {number: label.category for number, label in weights.labels.items()}
    names = {label.category: label.name for label in weights.labels.values()}
    rows = to_coco(found, batch, categories, getattr(found, "masks", None))
    for row in rows:
        del row["image_id"]
    return [Found(name=names[row["category_id"]], **row) for row in rows]
