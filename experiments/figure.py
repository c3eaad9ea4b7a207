"""A study as a picture: each variant's metric over seeds beside what it costs.

On the left the mean and its 95 % interval as measured in the profile, and open beside it what is
printed, which is of other data: the steps compare, not the levels. On the right multiply-adds at
the paper's own size, counted (the bar) and printed (the mark). A variant that has not run keeps its
line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.errors import UserError
from experiments.tables import Report, Row
from spinenet.drawing import GREY

BLUE, ORANGE = "#0072b2", "#e69f00"  # Okabe and Ito's, as in the drawings of networks
ROW, HEAD = 0.38, 1.2  # inches
SMALL: dict[str, Any] = {"color": GREY, "fontsize": 8}


def figure(report: Report) -> Figure:
    """The report drawn, a line per variant. Raises UserError where nothing has run."""
    if not any(report.metric in row.measured for row in report.rows):
        raise UserError(
            f"{report.study.id}: no run of profile {report.profile} to draw; run it first, or name "
            "its folder by --runs"
        )
    rows = report.rows
    drawn = Figure(figsize=(7.6, ROW * len(rows) + HEAD), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _measured(left, rows, report)
    _counted(right, rows)
    left.set_yticks(range(len(rows)), [row.variant.label for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    for axes in (left, right):
        dress(axes)
    return drawn


def _measured(axes: Axes, rows: Sequence[Row], report: Report) -> None:
    """Mean and interval; one seed has no interval and is drawn hollow."""
    lowest = 0.0
    for place, row in enumerate(rows):
        found = row.measured.get(report.metric)
        if found is None:
            words = "unpublished" if row.variant.unpublished else "not run"
            axes.text(
                0.02, place, words, transform=axes.get_yaxis_transform(), va="center", **SMALL
            )
            continue
        alone: dict[str, Any] = {"mfc": "none"} if found.half is None else {}
        error = [[0.0 if found.half is None else found.half]] * 2
        axes.errorbar(found.mean, place, xerr=error, fmt="o", color=BLUE, capsize=3, **alone)
        axes.containers[0].set_label("measured")  # all look alike, so one stands in the legend
        lowest = min(lowest, found.low or 0.0)
    _printed(axes, rows, report.metric, mfc="none", zorder=3)  # open, and above what it meets
    axes.set_xlim(left=lowest)
    axes.set_xlabel(f"{report.metric} on {report.data}, {report.profile}: mean, 95 % interval")
    _legend(axes)


def _counted(axes: Axes, rows: Sequence[Row]) -> None:
    """Bars of what is counted, marks of what is printed."""
    counted = [row.full.macs_b if row.full else 0.0 for row in rows]
    axes.barh(range(len(rows)), counted, color=GREY, alpha=0.7, height=0.5, label="counted")
    _printed(axes, rows, "macs_b")
    axes.set_xlabel("multiply-adds, 1e9, full size")
    _legend(axes)


def _printed(axes: Axes, rows: Sequence[Row], metric: str, **look: Any) -> None:
    """The paper's numbers as diamonds, so that no reader needs their colour."""
    printed = [(p.value, i) for i, row in enumerate(rows) if (p := row.paper(metric))]
    if printed:
        values, places = zip(*printed, strict=True)
        axes.plot(values, places, ls="none", marker="d", color=ORANGE, label="printed", **look)


def _legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 2}
    axes.legend(frameon=False, labelcolor=GREY, fontsize=8, **place)


def dress(axes: Axes, grid: Literal["x", "both"] = "x") -> None:
    """Grey, which reads on white and on black."""
    axes.tick_params(colors=GREY, labelsize=9, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=GREY, size=9)
    axes.grid(axis=grid, color=GREY, alpha=0.25)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
