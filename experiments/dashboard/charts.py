"""Charts as geometry: what the template draws as SVG, in its pixels.

Inline SVG takes its colours from the page, light or dark, can be reached by keyboard and linked
point by point, and weighs a few kilobytes; a plotting library would be megabytes on every page.
Only the choice of round ticks is matplotlib's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 40
STYLES = 7  # colours, dashes and marks before they repeat; more than the eye tells apart
MINUS = "−"
# Pixels from a point to its label's baseline, nearest first.
LABEL_SPOTS = [
    (side * 10, 4 + down, "start" if side > 0 else "end")
    for down in (0, -12, 12, -24, 24)
    for side in (1, -1)
]

STRIP_WIDTH, STRIP_HEIGHT = 240, 18
STRIP_LINEAR = 3.0  # points; up to here the strips' axis is nearly linear, then logarithmic
STRIP_TICKS = (-30, -10, -3, 0, 3, 10, 30)
STRIP_END = 50.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve over x, with a band (x, low, high) where there is a spread."""

    label: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    note: str = ""


@dataclass(frozen=True)
class Mark:
    """One labelled point, `half` an interval to both sides, and the page that it leads to."""

    label: str
    x: float
    y: float
    name: str
    half: float | None = None
    href: str = ""
    style: int = 0


@dataclass(frozen=True)
class Dot:
    """One of many points, named where one points at it."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Axis:
    """Values to pixels: `start` is where `low` is drawn."""

    label: str
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def facts(self) -> str:
        """What turns pixels back into values."""
        return f"{self.low:.6g} {self.high:.6g} {self.start:g} {self.end:g}"

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and labels of round values."""
        values = _locator().tick_values(self.low, self.high)
        return [(self.at(v), number(v)) for v in values if self.low <= v <= self.high]


@dataclass(frozen=True)
class Chart:
    """What is drawn, ready for the template; `title` and `description` are read to who cannot
    see it.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    lines: Sequence[Line] = ()
    marks: Sequence[Mark] = ()
    places: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    dots: Sequence[Dot] = ()

    width = WIDTH
    height = HEIGHT

    def path(self, line: Line) -> str:
        """The curve as an SVG path."""
        return _path((self.x.at(x), self.y.at(y)) for x, y in line.points)

    def area(self, line: Line) -> str:
        """The band as a closed SVG path."""
        upper = [(self.x.at(x), self.y.at(high)) for x, _, high in line.band]
        lower = [(self.x.at(x), self.y.at(low)) for x, low, _ in reversed(line.band)]
        return _path([*upper, *lower]) + "Z"


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    from_zero: bool = False,
    dots: Sequence[Dot] = (),
) -> Chart:
    """Curves over steps or recall, with dots behind them. There must be a point to draw."""
    xs = [*(x for line in lines for x, _ in line.points), *(dot.x for dot in dots)]
    ys = [*(y for line in lines for _, y in line.points), *(dot.y for dot in dots)]
    ys += [edge for line in lines for _, low, high in line.band for edge in (low, high)]
    ends = "; ".join(f"{line.label} ends at {number(line.points[-1][1])}" for line in lines)
    return Chart(
        title,
        f"{y_label} over {x_label}: {ends}.",
        _axis(x_label, xs, LEFT, WIDTH - RIGHT, pad=0.02 if dots else 0.0),
        _axis(y_label, [*ys, *([0.0] if from_zero else [])], HEIGHT - BOTTOM, TOP),
        lines,
        dots=dots,
    )


def stairs(points: Sequence[Point]) -> list[Point]:
    """The curve that keeps each value until the next one changes it. There must be a point."""
    found = [points[0]]
    for (_, before), (x, y) in pairwise(points):
        found += [(x, before), (x, y)] if y != before else []
    return [*found, points[-1]]


def scatter(title: str, marks: Sequence[Mark], x_label: str, y_label: str) -> Chart:
    """Labelled points with intervals. There must be one."""
    edges = [m.y + side * (m.half or 0) for m in marks for side in (-1, 1)]
    x = _axis(x_label, [m.x for m in marks], LEFT, WIDTH - RIGHT)
    y = _axis(y_label, edges, HEIGHT - BOTTOM, TOP)
    listed = "; ".join(f"{m.name}: {number(m.y)} at {number(m.x)}" for m in marks)
    description = f"{y_label} against {x_label}. {listed}."
    return Chart(title, description, x, y, marks=marks, places=_place_labels(marks, x, y))


def _place_labels(marks: Sequence[Mark], x: Axis, y: Axis) -> dict[str, tuple[float, float, str]]:
    """Where each label goes: beside its point, on the first side where nothing else is."""
    taken = [(x.at(m.x), y.at(m.y)) for m in marks]
    places = {}
    for mark in marks:
        px, py = x.at(mark.x), y.at(mark.y)
        spots = [(px + dx, py + dy, anchor) for dx, dy, anchor in LABEL_SPOTS]
        free = (
            spot
            for spot in spots
            if all(abs(spot[0] - a) > 9 or abs(spot[1] - 4 - b) > 11 for a, b in taken)
        )
        places[mark.label] = spot = next(free, spots[0])
        taken.append((spot[0], spot[1] - 4))
    return places


def _axis(label: str, values: Sequence[float], start: float, end: float, pad: float = 0.07) -> Axis:
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    return Axis(label, low - pad * spread, high + max(pad, 1e-9) * spread, start, end)


def _locator() -> MaxNLocator:
    return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])


def _path(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


@dataclass(frozen=True)
class Strip:
    """One effect with its interval on the axis that all strips share, in pixels; the paper's own
    effect, and the margin that counts as equal.
    """

    effect: float
    low: float | None
    high: float | None
    paper: float | None
    margin: tuple[float, float] | None
    description: str

    width = STRIP_WIDTH
    height = STRIP_HEIGHT
    zero = STRIP_WIDTH / 2


def strip(
    effect: float, low: float | None, high: float | None, paper: float | None, margin: float
) -> Strip:
    """The strip of one claim."""
    told = f"effect {signed(effect)}"
    told += "" if low is None or high is None else f", from {signed(low)} to {signed(high)}"
    told += "" if paper is None else f"; in the paper {signed(paper)}"
    return Strip(
        strip_at(effect),
        None if low is None else strip_at(low),
        None if high is None else strip_at(high),
        None if paper is None else strip_at(paper),
        (strip_at(-margin), strip_at(margin)) if margin else None,
        told,
    )


def strip_at(value: float) -> float:
    """The pixel of an effect; one beyond the end is drawn at the end."""
    share = math.asinh(value / STRIP_LINEAR) / math.asinh(STRIP_END / STRIP_LINEAR)
    return round(STRIP_WIDTH / 2 * (1 + max(-1.0, min(1.0, share))), 1)


def strip_ticks() -> list[tuple[float, str]]:
    """Pixels and labels of the strips' axis."""
    return [(strip_at(v), signed(v, 0) if v else "0") for v in STRIP_TICKS]


def number(value: float) -> str:
    """A short number with a true minus sign."""
    return f"{value:.4g}".replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS)
