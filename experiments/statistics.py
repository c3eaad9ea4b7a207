"""Effects over paired seeds: intervals, tests, and what a number of seeds can and cannot show.

Seeds pair across variants, since a seed fixes order and augmentation for all of them. A claim's
effect is the mean of the paired differences, its interval Student's. Several claims judged at once
are corrected by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; `half` is None below two values."""

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half is None else self.mean + self.half


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student interval of independent values."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, count)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Estimate(mean, _critical(count) * error, count)


def p_different(differences: Sequence[float]) -> float:
    """Two-sided p of the mean difference being zero; 1 where the differences have no spread, which
    then is not known.
    """
    error = _standard_error(differences)
    mean = float(np.mean(differences))
    if error == 0:
        return 1.0
    return 2 * _upper_tail(abs(mean) / error, len(differences))


def p_within(differences: Sequence[float], margin: float) -> float:
    """p of the mean difference lying outside ± margin: the larger of two one-sided tests (TOST); 1
    without spread.
    """
    error = _standard_error(differences)
    mean = float(np.mean(differences))
    if error == 0:
        return 1.0
    return _upper_tail((margin - abs(mean)) / error, len(differences))


def p_beyond(differences: Sequence[float], margin: float) -> float:
    """p of the mean difference lying within ± margin, against it being larger than the margin; 1
    without spread.
    """
    error = _standard_error(differences)
    mean = float(np.mean(differences))
    if error == 0:
        return 1.0
    return _upper_tail((abs(mean) - margin) / error, len(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: each may be read against 0.05 as if it were the only one."""
    order = np.argsort(p_values)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation over seeds, pooled over variants; None when no variant has two seeds."""
    groups = [g for g in groups if len(g) > 1]
    freedom = sum(len(g) - 1 for g in groups)
    if freedom == 0:
        return None
    return math.sqrt(sum((len(g) - 1) * float(np.var(g, ddof=1)) for g in groups) / freedom)


def detectable(deviation: float, seeds: int) -> float | None:
    """Smallest true difference between two variants that `seeds` paired seeds show with 80 % power.

    `deviation` is that of one variant over seeds; the difference of two varies by the square root
    of two more.
    """
    if seeds < 2:
        return None
    low, high = 0.0, 100 * max(deviation, 1e-9)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, deviation, seeds) >= POWER else (middle, high)
    return high


def seeds_to_detect(effect: float, deviation: float) -> int | None:
    """Paired seeds that show a true difference of `effect` with 80 % power; None past 1000."""
    return _fewest(lambda n: _power(abs(effect), deviation, n) >= POWER)


def seeds_to_bound(margin: float, deviation: float, effect: float = 0.0) -> int | None:
    """Paired seeds that show a true difference of `effect` to be within ± margin with 80 % power;
    None past 1000, and where it is not within.

    At 2.5 % on each side, as claims are judged, which look for being within and for being beyond.
    """
    near, far = margin - abs(effect), margin + abs(effect)
    if near <= 0:
        return None

    def enough(seeds: int) -> bool:
        error = math.sqrt(2 / seeds) * max(deviation, 1e-9)
        reaches = (near / error - _critical(seeds), far / error - _critical(seeds))
        missed = sum(_upper_tail(reach, seeds) for reach in reaches)
        return min(reaches) > 0 and 1 - missed >= POWER

    return _fewest(enough)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    return next((n for n in range(2, MOST_SEEDS + 1) if enough(n)), None)


def _power(effect: float, deviation: float, seeds: int) -> float:
    """Chance that the two-sided paired t-test at 5 % finds `effect`."""
    # Beyond a shift of 30 the power is all but 1 at any number of seeds, and nctdtr may fail.
    shift = min(effect / (math.sqrt(2 / seeds) * max(deviation, 1e-9)), 30.0)
    return float(1 - special.nctdtr(seeds - 1, shift, _critical(seeds)))


def _critical(count: int) -> float:
    """Two-sided 95 % point of Student's distribution for the mean of `count` values."""
    return float(special.stdtrit(count - 1, 1 - ALPHA / 2))


def _upper_tail(statistic: float, count: int) -> float:
    """Chance that Student's statistic of `count` values exceeds `statistic`."""
    return float(special.stdtr(count - 1, -statistic))


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
