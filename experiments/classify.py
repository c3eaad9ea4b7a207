"""Classes of pictures of one's own: drawn below each picture, as JSON, and as a table.

A picture is taken as a viewer shows it, and the network sees the central square that evaluation
cuts out, which is framed in the drawing. Probabilities are those of all the network's outputs, also
of a background class that has no name and is never listed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from datamodules.crops import Crop, CropConfig, centre_crop, crop_image
from experiments.predict import COLOURS, READABLE, drawing_files, enlarged, read_upright
from experiments.store import write_atomically
from experiments.weights import Label, Weights
from spinenet.drawing import FONT

LISTED = 5
FRAME, BAR = COLOURS[0], COLOURS[1]


@dataclass(frozen=True)
class Guess:
    """A class that a picture may have, and how probable the network finds it."""

    category_id: int
    name: str
    probability: float

    def __str__(self) -> str:
        return f"{self.name} {self.probability:.2f}"

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def classify(
    weights: Weights, pictures: Sequence[Path], folder: Path, threshold: float = 0.0
) -> Iterator[tuple[Path, list[Guess]]]:
    """Find each picture's five most probable classes of at least `threshold`, draw them into
    `folder`, and write `classes.json` and `classes.csv` there after the last. Yields each picture
    with its classes, the most probable first.

    Raises UserError that names a picture which is missing or damaged.
    """
    drawings = drawing_files(pictures, folder, "classes")
    transform = cast(CropConfig, weights.recipe.data.transform)
    model = weights.network()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for path, drawing in zip(pictures, drawings, strict=True):
        pixels = read_upright(path)
        height, width = pixels.shape[-2:]
        crop = centre_crop((height, width), transform.centre)
        images = crop_image(pixels, crop, transform.side)[None]
        guesses = [g for g in _guess(model, images, weights.labels) if g.probability >= threshold]
        draw(pixels, guesses, crop).save(drawing)
        shown = {"file": str(path), "drawing": drawing.name, "width": width, "height": height}
        rows.append(shown | {"classes": [guess.row() for guess in guesses]})
        yield path, guesses
    write_atomically(folder / "classes.json", json.dumps(rows, indent=1))
    write_atomically(folder / "classes.csv", _table(rows))


def draw(pixels: Tensor, guesses: Sequence[Guess], crop: Crop) -> Image.Image:
    """`pixels`, uint8 (3, H, W), with the square that the network saw and a bar per guess below.
    Small pictures are enlarged until the letters leave something to see.
    """
    zoom = max(1, READABLE // max(pixels.shape[-2:]))
    picture = Image.fromarray(enlarged(pixels, zoom).permute(1, 2, 0).numpy())
    size = max(12, max(picture.size) // 40)
    line, width = size * 3 // 2, max(1, size // 8)
    canvas = Image.new("RGB", (picture.width, picture.height + line * len(guesses)), "white")
    canvas.paste(picture)
    pen = ImageDraw.Draw(canvas)
    left, top, right, bottom = (
        zoom * v for v in (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    )
    pen.rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=width)
    font = ImageFont.truetype(str(FONT), size)
    for k, guess in enumerate(guesses):
        y = picture.height + line * k
        pen.rectangle((0, y, round(picture.width * guess.probability), y + line - 2), fill=BAR)
        pen.text((size // 2, y + line // 2), str(guess), fill="black", font=font, anchor="lm")
    return canvas


@torch.no_grad()
def _guess(model: nn.Module, images: Tensor, labels: Mapping[int, Label]) -> list[Guess]:
    """The most probable of the classes `labels` for one picture (1, 3, S, S), best first."""
    device = next(model.parameters()).device
    logits = model(images.to(device, memory_format=torch.channels_last))[0]
    probabilities = logits.float().softmax(0).tolist()
    best = sorted(labels, key=lambda number: -probabilities[number])[:LISTED]
    return [Guess(labels[n].category, labels[n].name, probabilities[n]) for n in best]


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """CSV, a line per picture and class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "rank", "category_id", "name", "probability"])
    for row in rows:
        for rank, one in enumerate(row["classes"], start=1):
            writer.writerow([row["file"], rank, *one.values()])
    return text.getvalue()
