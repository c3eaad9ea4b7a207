"""How far a grid is in work rather than in runs, how long it still takes, and how sure that is.

A run is priced as `spinenet plan` prices it, by its multiply-adds, from the finished runs of the
same grid; before any has finished, from the rate of those that run. What is missing is then dealt
out to as many workers as are at work now. How sure: what such prices are off by for the finished
runs, each priced from the others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heapreplace
from statistics import fmean

from experiments.counting import macs_by_run
from experiments.pricing import Speed, seconds_of
from experiments.provenance import processor
from experiments.snapshot import Run
from experiments.store import Result
from experiments.study import Cell

FEWEST = 3  # finished runs from which one can tell what a price is off by
SETTLED = 0.1  # share of a run after which its own rate says more than the finished runs


@dataclass(frozen=True)
class Outlook:
    """`share` of the work is done, from 0 to 1; `seconds` are left for so many `workers`, none
    where nothing has been timed. `off` is what a price is off by, as a share of it, none where that
    is not known. `running` says whether anything is at work.
    """

    share: float
    seconds: float | None
    workers: int
    running: bool
    off: float | None = None

    @property
    def off_percent(self) -> int:
        """For people, who know that nothing is exact."""
        return max(1, round(100 * (self.off or 0.0)))


class Pace:
    """What the runs of one grid take, from those that have finished; runs that were timed on this
    processor are preferred.
    """

    def __init__(self, cells: Sequence[Cell], runs: Mapping[str, Run]) -> None:
        self.cells = {cell.run_id: cell for cell in cells}
        known = [runs[i].record.result for i in self.cells if i in runs]
        self.finished = [result for result in known if result is not None and _is_timed(result)]
        here = [r for r in self.finished if r.environment.get("processor") == processor()]
        self._timed = here or self.finished
        self.speeds = pooled(self._timed)

    @cached_property
    def macs_b(self) -> dict[str, float]:
        """Multiply-adds in 1e9 of each cell's network, counted where no run of it says them."""
        said = {self.cells[r.run_id].variant: r.macs_b for r in self.finished}
        silent = {c.variant: c for c in self.cells.values() if c.variant not in said}
        counted = macs_by_run(list(silent.values()))
        said |= {variant: counted[cell.run_id] for variant, cell in silent.items()}
        return {run_id: said[cell.variant] for run_id, cell in self.cells.items()}

    @cached_property
    def off(self) -> float | None:
        """Root mean square of what a finished run's price, made from the others, is off by."""
        if len(self._timed) < FEWEST:
            return None
        errors = []
        for one in self._timed:
            others = pooled(other for other in self._timed if other is not one)
            price = seconds_of(one.macs_b, one.images_seen, others)
            errors.append(math.log(one.all_seconds / price))
        return math.expm1(math.sqrt(fmean(error**2 for error in errors)))

    def outlook(self, runs: Mapping[str, Run]) -> Outlook:
        """How far the grid is, and how long it still takes, as its runs are now."""
        states = {i: runs[i].state if i in runs else "missing" for i in self.cells}
        running = [i for i, state in states.items() if state == "running"]
        workers = max(1, len(running))
        done = {i: 1.0 if state == "complete" else 0.0 for i, state in states.items()}
        done |= {i: p.share for i in running if (p := runs[i].progress)}
        price = self._prices(runs)
        if not price:
            return Outlook(fmean(done.values()), None, workers, bool(running))
        waiting = [i for i, state in states.items() if state in ("missing", "stopped")]
        waiting.sort(key=lambda i: (self.cells[i].seed, -price[i]))
        begun = [self._left(runs[i], price[i]) for i in running]
        seconds = dealt(begun, [price[i] for i in waiting], workers)
        share = sum(done[i] * price[i] for i in done) / sum(price.values())
        return Outlook(share, seconds, workers, bool(running), self.off)

    def _prices(self, runs: Mapping[str, Run]) -> dict[str, float]:
        """Seconds of each run from its start; none where nothing has been timed."""
        speeds, pictures = self.speeds or self._of_running(runs), self._pictures(runs)
        if not speeds or not pictures:
            return {}
        return {
            i: seconds_of(self.macs_b[i], pictures * cell.recipe.train.epochs, speeds)
            for i, cell in self.cells.items()
        }

    def _left(self, run: Run, price: float) -> float:
        """Of a run: at its own rate once that has settled, else what is left of its price."""
        progress = run.progress
        if progress is None:
            return price
        left = price * (1 - progress.share)
        if progress.seconds_left is None or (self.speeds and progress.share < SETTLED):
            return left
        return progress.seconds_left + min((speed.beside_s for speed in self.speeds), default=0.0)

    def _of_running(self, runs: Mapping[str, Run]) -> list[Speed]:
        """The speeds of what runs: training alone, of networks that have to be counted."""
        at_work = [i for i in self.cells if i in runs and runs[i].state == "running"]
        rates = {i: p.images_per_second for i in at_work if (p := runs[i].progress)}
        return [Speed(self.macs_b[i], rate, 0.0) for i, rate in rates.items() if rate]

    def _pictures(self, runs: Mapping[str, Run]) -> float:
        """Of an epoch, which all runs of a grid share; from one that tells them, as the data need
        not be at hand.
        """
        for result in self.finished:
            return result.images_seen / self.cells[result.run_id].recipe.train.epochs
        for run_id, cell in self.cells.items():
            if run_id in runs and (p := runs[run_id].progress) and p.total:
                return p.total * p.batch_size / cell.recipe.train.epochs
        return 0.0


def pooled(results: Iterable[Result]) -> list[Speed]:
    """One speed for each network, the mean of its runs."""
    groups: dict[float, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.macs_b].append(result)
    return [
        Speed(
            macs_b,
            # By the rate, since a run that was resumed has its own seconds only.
            sum(r.images_seen for r in group)
            / sum(r.images_seen / r.images_per_second for r in group),
            fmean(r.seconds - r.train_seconds for r in group),
        )
        for macs_b, group in groups.items()
    ]


def _is_timed(result: Result) -> bool:
    return min(result.macs_b, result.images_seen, result.images_per_second, result.seconds) > 0


def dealt(running: Sequence[float], waiting: Sequence[float], workers: int) -> float:
    """When the last run ends, if each waiting one goes in turn to the first worker that is free."""
    ends = [*running, *[0.0] * (workers - len(running))]
    heapify(ends)
    for seconds in waiting:
        heapreplace(ends, ends[0] + seconds)
    return max(ends)
