"""Timing a contest: both sides in turn, in random order, and the ratio of their speeds.

A machine's speed drifts, by its temperature and by what else runs. So the sides alternate within
each round, each round gives one ratio from its two medians, and the interval is Student's over the
logarithms of the rounds' ratios: what slows both sides of a round alike falls out.
"""

from __future__ import annotations

import gc
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from experiments.bench.contest import Clock, Contest, Settings, Side
from experiments.statistics import estimate

WARM_UP_S = 1.0
MOST_WARM_UPS = 3
MOST_CALLS = 5  # of each side in a round

Samples = tuple[tuple[float, ...], ...]
"""Seconds by round and call."""


@dataclass(frozen=True)
class Times:
    """One side, measured. `cpu_s` is user and system time of all threads and child processes."""

    label: str
    work: float
    wall_s: Samples
    cpu_s: Samples

    def medians(self, clock: Clock) -> list[float]:
        """Seconds of each round."""
        return [median(calls) for calls in (self.wall_s if clock == "wall" else self.cpu_s)]


@dataclass(frozen=True)
class Outcome:
    """A contest's result: `ratio` is our speed over theirs, with a 95 % interval."""

    name: str
    unit: str
    clock: Clock
    ours: Times
    theirs: Times
    ratio: float
    low: float | None
    high: float | None
    facts: dict[str, Any]

    def seconds(self, side: Times) -> float:
        """Median seconds of one call of a side."""
        return median(side.medians(self.clock))


def measure(contest: Contest, settings: Settings, on_round: Callable[[], None]) -> Outcome:
    """Hold a contest; `on_round` is called after each round."""
    torch.set_num_threads(contest.threads or settings.threads)
    gc.collect()
    sides = {"ours": contest.ours, "theirs": contest.theirs}
    once = max(_warm_up(side, settings) for side in sides.values())
    calls = 1 if settings.quick else max(1, min(MOST_CALLS, round(1 / max(once, 1e-9))))
    order, found = random.Random(0), {name: _Found([], []) for name in sides}
    for _ in range(settings.rounds):
        for times in found.values():
            times.start_round()
        for _ in range(calls):
            for name in order.sample(list(sides), 2):
                found[name].add(*_timed(sides[name], settings))
        on_round()
    ours, theirs = (found[name].times(side) for name, side in sides.items())
    ratio, low, high = _ratio(ours, theirs, contest.clock)
    facts = contest.facts(median(ours.medians(contest.clock)))
    torch.set_num_threads(settings.threads)  # of what the next contest sets up
    return Outcome(contest.name, contest.unit, contest.clock, ours, theirs, ratio, low, high, facts)


def _warm_up(side: Side, settings: Settings) -> float:
    """Run a side until it has had a second, or once if quick; how long its last call took."""
    spent, last = 0.0, 0.0
    for _ in range(MOST_WARM_UPS):
        last, _ = _timed(side, settings)
        spent += last
        if settings.quick or spent > WARM_UP_S:
            break
    return last


def _timed(side: Side, settings: Settings) -> tuple[float, float]:
    """Wall and processor seconds of one call, the device's work included."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    side.run()
    if settings.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """Of this process, to the nanosecond, and of its finished children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _ratio(ours: Times, theirs: Times, clock: Clock) -> tuple[float, float | None, float | None]:
    """Our speed over theirs and its interval, from the rounds' logarithms."""
    work = ours.work / theirs.work
    pairs = zip(ours.medians(clock), theirs.medians(clock), strict=True)
    logs = estimate([math.log(work * b / a) for a, b in pairs])
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return math.exp(logs.mean), low, high


@dataclass
class _Found:
    """A side's samples so far."""

    wall_s: list[list[float]]
    cpu_s: list[list[float]]

    def start_round(self) -> None:
        self.wall_s.append([])
        self.cpu_s.append([])

    def add(self, wall_s: float, cpu_s: float) -> None:
        self.wall_s[-1].append(wall_s)
        self.cpu_s[-1].append(cpu_s)

    def times(self, side: Side) -> Times:
        wall, cpu = (tuple(map(tuple, rounds)) for rounds in (self.wall_s, self.cpu_s))
        return Times(side.label, side.work, wall, cpu)
