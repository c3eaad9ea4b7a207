"""A model's page: drawn, counted block by block, and its genotype as a table."""

from __future__ import annotations

import tempfile
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from experiments.architecture import describe, find
from experiments.dashboard.pages import Content
from spinenet.config import SpineNetConfig
from spinenet.drawing import draw, draw_difference, save
from spinenet.genotype import Genotype, from_yaml

MOST_DRAWN = 256


def model(name: str) -> Content:
    """One model of the paper, or one genotype."""
    facts = _described(name)
    backbone = find(name).backbone
    genotype = backbone.genotype if isinstance(backbone, SpineNetConfig) else None
    rows: list[dict[str, Any]] = facts["rows"]
    return "model.html", {
        "name": name,
        "facts": facts,
        "rows": rows,
        "largest": max(row["macs_b"] for row in rows),
        "genotype": genotype,
        "drawing": f"{genotype.name}.svg" if genotype else "",
        "scaling": _scaling(backbone),
    }


@cache  # follows from the code alone, and takes most of a second
def _described(name: str) -> dict[str, Any]:
    return describe(find(name))


def drawing(*genotypes: Genotype) -> bytes:
    """A genotype drawn, or the difference of two, as SVG."""
    return _drawn(*(genotype.to_yaml() for genotype in genotypes))


@lru_cache(maxsize=MOST_DRAWN)  # a drawing takes a moment and some tens of kilobytes
def _drawn(*texts: str) -> bytes:
    first, *others = map(from_yaml, texts)
    figure = draw_difference(first, *others) if others else draw(first)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawing.svg"
        save(figure, path)
        return path.read_bytes()


def _scaling(backbone: Any) -> dict[str, Any]:
    """How a genotype is scaled, or which ResNet it is."""
    names = ("width", "block_repeats", "resample_alpha", "endpoint_filters", "depth", "neck")
    return {name: getattr(backbone, name) for name in names if hasattr(backbone, name)}
