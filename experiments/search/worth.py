"""What the proxy is worth, from a table: how much of a reward is chance, whether it ranks networks
as a longer training does, what it costs, and where the paper's networks stand among samples.

Intervals of rank correlations are by the bootstrap over networks (percentiles of resamples). The
reliability is the share of the variance between networks that another seed would find again; no
correlation with anything can be expected above its square root.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, mode
from typing import Any

import numpy as np
from scipy import stats

from experiments.search.table import Part, Run, Table
from experiments.statistics import pooled_deviation

RESAMPLES = 1000
LEAST_PAIRS = 10  # fewer say nothing, nor do any that are all alike
TOP = 0.2  # of the networks, for the overlap of the best


@dataclass(frozen=True)
class Correlation:
    """A rank correlation of two measurements of so many networks, with its 95 % interval."""

    value: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True)
class PaperStanding:
    """A network of the paper among the samples of its space: its mean AP over so many seeds, and
    the share of the samples, of so many, that are below it.
    """

    name: str
    space: str
    ap: float
    seeds: int
    below: float
    samples: int


@dataclass(frozen=True)
class Worth:
    """The proxy's. AP in percent; None where the table has too little to say. `kendall` and
    `spearman` are with the longer training, `kendall_better` of the better half by the proxy alone,
    since a search ends among those; `with_macs` is of the proxy with multiply-adds. `overlap` is
    how many of the best fifth by the longer training are in the best fifth by the proxy, of how
    many. `seconds` and `outside_training` are of the processor or GPU, `machine`, that trained most
    of the runs.
    """

    networks: int
    diverged: int
    mean: float
    spread: float
    best: float
    noise: float | None
    reliability: float | None
    between_seeds: Correlation | None
    kendall: Correlation | None
    kendall_better: Correlation | None
    spearman: Correlation | None
    with_macs: Correlation | None
    overlap: tuple[int, int] | None
    machine: str
    seconds: Mapping[Part, float]
    outside_training: float | None
    standings: tuple[PaperStanding, ...]


def worth(table: Table) -> Worth | None:
    """All that a table says of its proxy; None before it has two networks."""
    proxy = table.ap("proxy")
    papers = {one.hash for one in table.networks if one.name}
    sampled = [seeds[0] for name, seeds in proxy.items() if name not in papers and 0 in seeds]
    if len(sampled) < 2:
        return None
    noise = pooled_deviation([list(seeds.values()) for seeds in proxy.values()])
    spread = float(np.std(sampled, ddof=1))
    pairs = _pairs(table)
    trained = [run for run in table.runs if not run.diverged]
    machine = mode(run.processor for run in trained) if trained else ""
    timed = [run for run in trained if run.processor == machine]
    macs_m = {one.hash: one.macs_m for one in table.networks}
    return Worth(
        networks=len(sampled),
        diverged=sum(run.diverged for run in table.runs if run.part == "proxy"),
        mean=float(np.mean(sampled)),
        spread=spread,
        best=max(sampled),
        noise=noise,
        reliability=None if noise is None or not spread else max(0.0, 1 - (noise / spread) ** 2),
        between_seeds=_correlation([(s[0], s[1]) for s in proxy.values() if {0, 1} <= s.keys()]),
        kendall=_correlation(pairs),
        kendall_better=_correlation(sorted(pairs)[len(pairs) // 2 :]),
        spearman=_correlation(pairs, stats.spearmanr),
        with_macs=_correlation([(macs_m[n], s[0]) for n, s in proxy.items() if 0 in s]),
        overlap=_overlap(pairs),
        machine=machine,
        seconds=_seconds(timed),
        outside_training=_outside_training(timed),
        standings=tuple(_standings(table)),
    )


def within(table: Table, space: str) -> Table:
    """What a table has of one space."""
    networks = tuple(one for one in table.networks if one.space == space)
    known = {one.hash for one in networks}
    runs = tuple(run for run in table.runs if run.network in known)
    return replace(table, networks=networks, runs=runs)


def _pairs(table: Table) -> list[tuple[float, float]]:
    """AP by the proxy and by the longer training of the networks that have both, seed 0."""
    proxy, longer = table.ap("proxy"), table.ap("longer")
    return [
        (proxy[name][0], seeds[0])
        for name, seeds in longer.items()
        if 0 in seeds and 0 in proxy.get(name, {})
    ]


def _correlation(
    pairs: Sequence[tuple[float, float]], kind: Callable[..., Any] = stats.kendalltau
) -> Correlation | None:
    if len(pairs) < LEAST_PAIRS or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    both, rng = np.array(pairs), np.random.default_rng(0)
    resamples = both[rng.integers(len(both), size=(RESAMPLES, len(both)))]
    # One that is all alike has no correlation, and no part in the interval.
    varied = resamples[(np.ptp(resamples, axis=1) > 0).all(axis=1)]
    low, high = np.percentile([kind(*some.T).statistic for some in varied], (2.5, 97.5))
    return Correlation(float(kind(*both.T).statistic), float(low), float(high), len(pairs))


def _overlap(pairs: Sequence[tuple[float, float]]) -> tuple[int, int] | None:
    count = int(len(pairs) * TOP)
    if not count:
        return None
    a, b = ({int(i) for i in np.argsort(side)[-count:]} for side in np.array(pairs).T)
    return len(a & b), count


def _seconds(timed: Sequence[Run]) -> dict[Part, float]:
    """The median run of each part, of one process."""
    by_part: dict[Part, list[float]] = {}
    for run in timed:
        by_part.setdefault(run.part, []).append(run.seconds)
    return {part: median(found) for part, found in by_part.items()}


def _outside_training(timed: Sequence[Run]) -> float | None:
    runs = [run for run in timed if run.part == "proxy"]
    seconds = sum(run.seconds for run in runs)
    return 1 - sum(run.train_seconds for run in runs) / seconds if seconds else None


def _standings(table: Table) -> list[PaperStanding]:
    proxy, found = table.ap("proxy"), []
    for paper in table.networks:
        others = [
            proxy[one.hash][0]
            for one in table.networks
            if not one.name and one.space == paper.space and 0 in proxy.get(one.hash, {})
        ]
        own = list(proxy.get(paper.hash, {}).values())
        if paper.name and own and others:
            ap = float(np.mean(own))
            below = float(np.mean([other < ap for other in others]))
            found.append(PaperStanding(paper.name, paper.space, ap, len(own), below, len(others)))
    return found
