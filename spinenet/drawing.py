"""Genotypes as pictures, in the manner of the paper's figure 4.

Blocks stand in the order they are computed, left to right, each at the height of its feature level.
Shape and colour give the kind (rectangles are bottlenecks, diamonds residual blocks, as in the
paper), the width suggests the map's resolution, a red border marks an output. Edges are curves led
around the blocks; an orphan that an output adds as it is comes dashed, and blocks that no output
depends on are pale. The colours are Okabe and Ito's; lines and letters are of a grey that reads on
white and on black.

Coordinates: x is a block's index, y its level, and one unit is UNIT inches in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle
from matplotlib.path import Path as Outline

from spinenet.comparison import compare, edges
from spinenet.edge_routing import BERNSTEIN, Array, Box, Edge, route
from spinenet.genotype import BlockSpec, Genotype

UNIT = 0.5
GREY, RED = "#7d8590", "#d55e00"
FONT = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
DASHES = (0, (3, 2))
LEGEND = 13  # columns that it may need
CLEAR = 0.03  # between the lowest or highest edge and the margin
LABEL = 0.3  # height of an output's name above it


@dataclass(frozen=True)
class Kind:
    """How blocks of a kind look: corners are those of a block of half width and height 1."""

    colour: str
    ink: str
    corners: tuple[tuple[float, float], ...]
    taper: float
    marker: str


KINDS = {
    "bottleneck": Kind("#0072b2", "white", ((-1, -1), (-1, 1), (1, 1), (1, -1)), 0, "s"),
    "residual": Kind("#e69f00", "black", ((-1, 0), (0, 1.25), (1, 0), (0, -1.25)), 0.8, "D"),
    "mbconv": Kind(
        "#009e73",
        "white",
        ((-1, 0), (-0.6, 1), (0.6, 1), (1, 0), (0.6, -1), (-0.6, -1)),
        0.4,
        "h",
    ),
}


@dataclass(frozen=True)
class Panel:
    """One genotype in a figure, and what of it is to be pale."""

    genotype: Genotype
    pale_blocks: frozenset[int]
    pale_edges: frozenset[Edge]


def draw(genotype: Genotype) -> Figure:
    """The architecture as a figure; dead blocks and the edges into them are pale."""
    dead = frozenset(range(len(genotype.nodes))) - set(genotype.built())
    into = frozenset(edge for edge in edges(genotype) if edge[1] in dead)
    return _figure([Panel(genotype, dead, into)], pale="no output depends on it")


def draw_difference(a: Genotype, b: Genotype) -> Figure:
    """`a` above `b`; what they share is pale, so what is left in colour is the difference."""
    both = compare(a, b)
    return _figure(
        [
            Panel(a, frozenset(both.blocks), frozenset(both.edges)),
            Panel(b, frozenset(both.blocks.values()), frozenset(both.edges.values())),
        ],
        pale="the same in both",
    )


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as SVG or PNG on a transparent ground; equal figures give equal bytes.

    Raises ValueError for another ending.
    """
    path = Path(path)
    unsaid = {".svg": ("Date", "Creator"), ".png": ("Software",)}.get(path.suffix.lower())
    if unsaid is None:
        raise ValueError(
            f"{path}: cannot draw a {path.suffix or 'nameless'} file; use .svg or .png"
        )
    with mpl.rc_context({"svg.hashsalt": "spinenet", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=200, transparent=True, metadata=dict.fromkeys(unsaid))


def _figure(panels: Sequence[Panel], *, pale: str) -> Figure:
    """One panel under the other, and a legend at the foot."""
    columns, foot = max(LEGEND, *(len(p.genotype.nodes) for p in panels)) + 1.1, 0.7
    routes = [_routes(panel.genotype) for panel in panels]
    spans = [_span(p.genotype, found) for p, found in zip(panels, routes, strict=True)]
    rows = sum(top - bottom for bottom, top in spans) + foot
    figure = Figure(figsize=(columns * UNIT, rows * UNIT))
    y = rows
    for panel, found, (bottom, top) in zip(panels, routes, spans, strict=True):
        y -= top - bottom
        axes = figure.add_axes((0, y / rows, 1, (top - bottom) / rows))
        axes.set(xlim=(-1.1, columns - 1.1), ylim=(bottom, top))
        axes.set_axis_off()
        _frame(axes, panel.genotype)
        _draw_edges(axes, panel, found)
        for index, node in enumerate(panel.genotype.nodes):
            _draw_block(axes, index, node, is_pale=index in panel.pale_blocks)
    handles = _legend(panels, pale)
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        labelcolor=GREY,
        handletextpad=0.5,
        columnspacing=1.8,
        borderaxespad=0.2,
    )
    return figure


def _routes(genotype: Genotype) -> dict[Edge, Array]:
    boxes = [_box(i, node) for i, node in enumerate(genotype.nodes)]
    return route(boxes, list(edges(genotype)))


def _span(genotype: Genotype, routes: dict[Edge, Array]) -> tuple[float, float]:
    """Lowest and highest y of a panel, with room for edges below and the title above."""
    levels = [node.level for node in genotype.nodes]
    points = np.concatenate([BERNSTEIN @ curve for curve in routes.values()])[:, 1]
    lowest, highest = min(levels) - 0.75, max(levels) + 1.15
    return min(lowest, points.min() - CLEAR), max(highest, points.max() + CLEAR + 0.5)


def _frame(axes: Axes, genotype: Genotype) -> None:
    """Title, a line per level, and the ground under the stem."""
    bottom, top = axes.get_ylim()
    right, left = len(genotype.nodes) - 0.5, -0.95
    title: Any = {"color": GREY, "weight": "bold", "size": 10, "va": "top", "parse_math": False}
    axes.text(left, top - 0.12, genotype.name, **title)
    for level in sorted({node.level for node in genotype.nodes}):
        axes.plot([-0.5, right], [level, level], color=GREY, lw=0.6, alpha=0.35, zorder=0)
        axes.text(left, level, f"L{level}", color=GREY, size=9, va="center")
    low, high = bottom + 0.2, max(genotype.stem) + 0.5
    ground = Rectangle((-0.5, low), len(genotype.stem), high - low, fc=GREY, alpha=0.13)
    axes.add_patch(ground)
    axes.text(-0.42, low + 0.04, "stem", color=GREY, size=7, va="bottom")


def _draw_edges(axes: Axes, panel: Panel, routes: dict[Edge, Array]) -> None:
    is_orphan = edges(panel.genotype)
    for edge, curve in routes.items():
        arrow = FancyArrowPatch(
            path=Outline(curve, [Outline.MOVETO, *[Outline.CURVE4] * 3]),
            arrowstyle="-|>,head_length=3,head_width=1.4",
            linestyle=DASHES if is_orphan[edge] else "solid",
            linewidth=1.1,
            color=GREY,
            alpha=0.32 if edge in panel.pale_edges else 1,
            zorder=2,
        )
        axes.add_patch(arrow)


def _box(index: int, node: BlockSpec) -> Box:
    """Where a block stands, each level an eighth narrower than the finer one."""
    return Box(
        x=index,
        y=node.level,
        half_width=0.37 * 0.88 ** (node.level - 2),
        half_height=0.24,
        taper=KINDS[node.kind].taper,
        headroom=LABEL if node.is_output else 0,
    )


def _outline(index: int, node: BlockSpec) -> Array:
    box = _box(index, node)
    size, centre = np.array([box.half_width, box.half_height]), np.array([box.x, box.y])
    return centre + size * KINDS[node.kind].corners


def _draw_block(axes: Axes, index: int, node: BlockSpec, *, is_pale: bool) -> None:
    kind, outline = KINDS[node.kind], _outline(index, node)
    border = RED if node.is_output else kind.colour
    if is_pale:
        style: Any = {"fc": (kind.colour, 0.22), "ec": (border, 0.6), "lw": 0.8}
    else:
        style = {"fc": kind.colour, "ec": border, "lw": 2.4 if node.is_output else 0}
    axes.add_patch(Polygon(outline, joinstyle="round", zorder=3, **style))
    text: Any = {"ha": "center", "zorder": 4, "size": 8}
    ink = GREY if is_pale else kind.ink
    axes.text(index, node.level, str(index), color=ink, va="center_baseline", **text)
    if node.is_output:
        top, alpha = outline[:, 1].max() + 0.07, 0.6 if is_pale else 1
        axes.text(index, top, f"P{node.level}", color=RED, weight="bold", alpha=alpha, **text)


def _legend(panels: Sequence[Panel], pale: str) -> list[Line2D]:
    """An entry for each thing that the figure shows."""

    def entry(label: str, **style: Any) -> Line2D:
        look: dict[str, Any] = {"ls": "none", "ms": 8} | style
        return Line2D([], [], label=label, **look)

    shown = {node.kind for panel in panels for node in panel.genotype.nodes}
    handles = [
        entry(name, marker=kind.marker, color=kind.colour)
        for name, kind in KINDS.items()
        if name in shown
    ]
    handles.append(entry("output", marker="s", mfc="none", mec=RED, mew=2))
    if any(added for panel in panels for added in edges(panel.genotype).values()):
        handles.append(entry("orphan, added as it is", ls=DASHES, color=GREY, lw=1.1))
    if any(panel.pale_blocks or panel.pale_edges for panel in panels):
        handles.append(entry(pale, marker="s", color=GREY, alpha=0.22))
    return handles
