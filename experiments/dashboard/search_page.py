"""The pages of searches: all of them beside one another, and each with its candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.dashboard.charts import Chart, Dot, Line, Point, line_chart, stairs
from experiments.dashboard.curves import mean_line
from experiments.dashboard.outlook import Outlook
from experiments.dashboard.pages import Content
from experiments.dashboard.searches import Found, Group, Sample, group_of, grouped
from experiments.dashboard.view import View
from experiments.search.report import level_shares


@dataclass(frozen=True)
class Entry:
    """A search among others; `even` is its best after as many samples as all of them have."""

    search: Found
    outlook: Outlook
    even: float | None


@dataclass(frozen=True)
class Comparison:
    """Searches whose rewards can be compared; each of them has `fewest` samples or more."""

    group: Group
    entries: list[Entry]
    fewest: int
    chart: Chart | None


def searches(view: View) -> Content:
    """Every search, beside those that it can be compared with."""
    groups = grouped(view.searches.values())
    return "searches.html", {
        "comparisons": [_comparison(view, group, found) for group, found in groups.items()],
        "damaged": view.damaged_searches,
    }


def search(view: View, search: Found) -> Content:
    """One search: how far it is, what is best, and every candidate."""
    group = group_of(search.config)
    beside = grouped(view.searches.values())[group]
    reward = search.config.reward
    charts = [_best_chart(search), _front_chart(search)] if search.trained else []
    return "search.html", {
        "search": search,
        "reward": reward,
        "outlook": search.outlook(view.snapshot),
        "chosen": search.chosen,
        "charts": charts,
        "comparison": _comparison(view, group, beside) if len(beside) > 1 else None,
        "levels": level_shares(search.tried) if len(search.tried) > 1 else {},
        "states": Counter(sample.state for sample in search.samples),
    }


def _comparison(view: View, group: Group, found: Sequence[Found]) -> Comparison:
    fewest = min(len(search.tried) for search in found)
    entries = [
        Entry(
            search,
            search.outlook(view.snapshot),
            search.best_so_far[fewest - 1] if fewest else None,
        )
        for search in found
    ]
    lines, chart = _controllers(found), None
    if len(found) > 1 and lines:
        title = f"Best {group.reward} so far, by controller"
        chart = line_chart(title, lines, "samples", group.reward)
    return Comparison(group, entries, fewest, chart)


def _controllers(found: Sequence[Found]) -> list[Line]:
    """A line for each controller, the mean over its seeds."""
    curves: dict[str, list[list[Point]]] = {}
    for search in found:
        curves.setdefault(search.config.controller, []).append(_climb(search))
    lines = [mean_line(name, some) for name, some in sorted(curves.items())]
    return [line for line in lines if line is not None]


def _climb(search: Found) -> list[Point]:
    return [(float(n), value) for n, value in enumerate(search.best_so_far, start=1)]


def _best_chart(search: Found) -> Chart:
    reward = search.config.reward
    dots = [
        Dot(s.told, s.reward, s.candidate.genotype.name)
        for s in search.samples
        if s.result and s.told is not None and s.reward is not None
    ]
    lines = [Line("best so far", stairs(_climb(search)))]
    return line_chart(f"{reward} of each sample", lines, "samples", reward, dots=dots)


def _front_chart(search: Found) -> Chart:
    reward = search.config.reward

    def place(sample: Sample) -> Point:
        assert sample.result is not None
        assert sample.reward is not None
        return sample.result.macs_b * 1e3, sample.reward

    dots = [Dot(*place(s), s.candidate.genotype.name) for s in search.trained]
    lines = [Line("no cheaper network is better", stairs([place(s) for s in search.front]))]
    title = f"{reward} against multiply-adds"
    return line_chart(title, lines, "10⁶ multiply-adds", reward, dots=dots)
