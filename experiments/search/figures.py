"""The search's figures: controllers over samples, and what the proxy is worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figure import BLUE, ORANGE, dress
from experiments.search.contest import Contest
from experiments.search.findings import Findings
from experiments.search.table import Table
from experiments.statistics import estimate
from spinenet.drawing import GREY, RED

COLOURS = {"policy": BLUE, "evolution": RED, "random": GREY}
SEARCHES = (BLUE, ORANGE, RED, "#009e73", "#cc79a7", GREY)  # Okabe and Ito's, as the others
SIZE = (7.6, 3.4)  # inches


def contest_figure(contest: Contest) -> Figure:
    """Each controller's mean and its 95 % interval, after so many samples: the regret
    where the optimum is known, else AP.
    """
    drawn = Figure(figsize=SIZE, layout="constrained")
    axes = drawn.subplots()
    for name in contest.curves:
        values = contest.means(name)
        if contest.optimum is not None:
            values = contest.optimum - values
        found = [estimate(column) for column in values.T.tolist()]
        means = np.array([one.mean for one in found])
        halves = np.array([one.half or 0.0 for one in found])
        axes.plot(contest.marks, means, color=COLOURS[name], label=name)
        axes.fill_between(
            contest.marks, means - halves, means + halves, color=COLOURS[name], alpha=0.2, lw=0
        )
    axes.set_xlabel("samples")
    what = "AP of the choice, by the model" if contest.optimum is None else "regret of the choice"
    axes.set_ylabel(what)
    axes.legend(frameon=False, labelcolor=GREY, fontsize=8)
    dress(axes, grid="both")
    return drawn


def proxy_figure(table: Table) -> Figure:
    """On the left AP by the longer training over AP by the proxy; on the right the proxy's AP over
    multiply-adds. Samples are dots, networks of the paper diamonds with their names.
    """
    drawn = Figure(figsize=SIZE, layout="constrained")
    left, right = drawn.subplots(1, 2)
    proxy, longer = (
        {n: s[0] for n, s in table.ap(part).items() if 0 in s} for part in ("proxy", "longer")
    )
    macs = {one.hash: one.macs_m for one in table.networks}
    names = {one.hash: one.name for one in table.networks if one.name}
    _dots(left, {n: (proxy[n], longer[n]) for n in longer if n in proxy}, names)
    _dots(right, {n: (macs[n], proxy[n]) for n in proxy}, names)
    left.set_xlabel("AP by the proxy")
    left.set_ylabel(f"AP by {table.config.long_profile}")
    right.set_xlabel("multiply-adds, 1e6")
    right.set_ylabel("AP by the proxy")
    for axes in (left, right):
        dress(axes, grid="both")
    return drawn


def found_figure(found: Sequence[Findings]) -> Figure:
    """On the left the best reward after so many samples of each search, on the right the reward of
    each network over its multiply-adds, with the front. Samples are in the order of telling.
    """
    drawn = Figure(figsize=SIZE, layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True)
    for colour, one in zip(cycle(SEARCHES), found):
        samples = range(1, one.tried + 1)
        left.step(samples, one.best_so_far, where="post", color=colour, label=one.name)
        dots = [(n.told, n.macs_m, n.reward) for n in one.networks]
        told, macs_m, reward = zip(*dots, strict=True)
        for axes, places in ((left, told), (right, macs_m)):
            axes.plot(places, reward, ls="none", marker="o", ms=2, color=colour, alpha=0.3)
        ends = sorted((n.macs_m, n.reward) for n in one.networks if n.run_id in one.front)
        right.step(*zip(*ends, strict=True), where="post", color=colour)
    left.set_xlabel("samples")
    left.set_ylabel("reward, and the best so far")
    right.set_xlabel("multiply-adds, 1e6")
    left.legend(frameon=False, labelcolor=GREY, fontsize=8)
    for axes in (left, right):
        dress(axes, grid="both")
    return drawn


def _dots(axes: Axes, points: dict[str, tuple[float, float]], names: dict[str, str]) -> None:
    samples = [point for network, point in points.items() if network not in names]
    if samples:
        axes.plot(*zip(*samples, strict=True), ls="none", marker="o", ms=3, color=BLUE, alpha=0.6)
    for network, name in names.items():
        if network in points:
            place = points[network]
            axes.plot(*place, ls="none", marker="D", ms=5, color=ORANGE)
            axes.annotate(
                name, place, xytext=(5, 3), textcoords="offset points", color=GREY, fontsize=8
            )
