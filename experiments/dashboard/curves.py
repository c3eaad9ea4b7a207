"""Learning curves from `history.jsonl`: one run's, or the mean and spread of several seeds."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.dashboard.charts import Line, Point
from experiments.snapshot import FileCache, Run, stamp_of

BINS = 120  # points of a curve; a pixel or four each

Curves = dict[str, list[Point]]


class History:
    """Curves by run, read again when the file grew."""

    def __init__(self, files: FileCache) -> None:
        self.files = files

    def of(self, run: Run) -> Curves:
        """Quantity → (step, value), in at most BINS points; empty where nothing was kept."""
        path = run.folder / "history.jsonl"
        return self.files.get("history", path, stamp_of(path), _read)


def _read(path: Path) -> Curves:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    found: Curves = defaultdict(list)
    for line in lines:
        row = _row(line)
        for key, value in row.items():
            if key not in ("step", "epoch") and is_number(value):
                found[key].append((float(row["step"]), float(value)))
    return {key: _binned(points) for key, points in found.items()}


def _row(line: str) -> dict[str, Any]:
    """One line's content; nothing for a line that is being written or damaged."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) and is_number(row.get("step")) else {}


def is_number(value: Any) -> bool:
    """Whether it can be drawn; the last loss of a failed run is often none."""
    return isinstance(value, int | float) and math.isfinite(value)


def _binned(points: list[Point]) -> list[Point]:
    """The same curve in at most BINS points: the mean of each stretch, at its last step."""
    size = -(-len(points) // BINS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], fmean(value for _, value in part)) for part in parts]


def mean_line(label: str, curves: Sequence[list[Point]]) -> Line | None:
    """The mean over seeds with a band from the lowest to the highest; seeds that are still short
    count as far as they go. None without a point.
    """
    begun = [np.array(curve) for curve in curves if curve]
    if not begun:
        return None
    longest = max(begun, key=lambda curve: curve[-1, 0])
    points, band = [], []
    for step in longest[:, 0]:
        there = [c for c in begun if c[0, 0] <= step <= c[-1, 0]]
        values = [float(np.interp(step, c[:, 0], c[:, 1])) for c in there]
        points.append((float(step), fmean(values)))
        band.append((float(step), min(values), max(values)))
    note = f"{len(begun)} seed{'s' * (len(begun) > 1)}"
    return Line(label, points, band if len(begun) > 1 else (), note)
