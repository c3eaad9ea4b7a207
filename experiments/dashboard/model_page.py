"""A model's page: drawn, counted block by block, and its genotype as a table."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from experiments.architecture import describe, find
from experiments.dashboard.pages import Content
from spinenet import drawing
from spinenet.config import SpineNetConfig


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


@cache
def drawn(name: str) -> bytes:
    """The drawing of a shipped genotype, as SVG."""
    figure = drawing.draw(find(name).genotype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawing.svg"
        drawing.save(figure, path)
        return path.read_bytes()


def _scaling(backbone: Any) -> dict[str, Any]:
    """How a genotype is scaled, or which ResNet it is."""
    names = ("width", "block_repeats", "resample_alpha", "endpoint_filters", "depth", "neck")
    return {name: getattr(backbone, name) for name in names if hasattr(backbone, name)}
