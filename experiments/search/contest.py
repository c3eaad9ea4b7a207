"""Controllers compared at an equal number of samples, over many seeds.

What counts after n samples is the worth of the network that a user would then take: the one with
the best reward so far. Where rewards are noisy that is not always the best one met, and the curve
may fall. Rewards are told as late as in a search, `lag` samples after they were asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np

from experiments.errors import UserError
from experiments.provenance import environment
from experiments.search.config import ControllerName, SearchConfig, controllers
from experiments.search.objectives import Objective, Planted
from experiments.search.table import Table
from experiments.statistics import Estimate, estimate, holm, p_different
from spinenet.search.controllers import Controller
from spinenet.search.space import Choices

ContestName = Literal["synthetic", "replay"]
CONTESTS: tuple[ContestName, ...] = get_args(ContestName)
CHANCE = "random"
MARKS = 40  # points of a curve, more or less
NOISE = 104_729  # of the noise's seeds, which no controller's are derived from

Watch = Callable[[int, int], None]
"""Told how many samples of how many are done."""


@dataclass(frozen=True)
class ContestConfig:
    """What is compared, and how long: `samples` of each controller with each of `seeds`."""

    name: ContestName
    space: str = "spinenet"
    samples: int = 500
    seeds: int = 30
    lag: int = 4

    @property
    def sharing(self) -> int:
        """How many seeds in turn are not independent: of two halves of a table, one rewards the
        first and judges the second, and the other the reverse.
        """
        return 2 if self.name == "replay" else 1


@dataclass(frozen=True)
class Contest:
    """Curves by controller and seed: the worth of the choice after each number of samples of
    `marks`. `facts` say what they rest on beside the settings.
    """

    config: ContestConfig
    noise: float
    optimum: float | None
    marks: tuple[int, ...]
    curves: dict[str, tuple[tuple[float, ...], ...]]
    facts: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, curves in self.curves.items():
            if len(curves) != self.config.seeds:
                raise ValueError(f"curves.{name}: {len(curves)} seeds, not {self.config.seeds}")
            if any(len(curve) != len(self.marks) for curve in curves):
                raise ValueError(f"curves.{name}: a curve has not {len(self.marks)} points")

    @property
    def replicates(self) -> int:
        """How many of a controller's searches are independent of one another, given the table."""
        return math.ceil(self.config.seeds / self.config.sharing)

    def means(self, name: str) -> np.ndarray:
        """A controller's curves as an array of replicates × marks: the mean of seeds that share
        what rewards and judges them.
        """
        curves, sharing = np.array(self.curves[name]), self.config.sharing
        groups = [curves[first : first + sharing] for first in range(0, len(curves), sharing)]
        return np.stack([group.mean(axis=0) for group in groups])

    def after(self, name: str, samples: int) -> list[float]:
        """What each replicate of a controller has after so many samples, one of `marks`."""
        return [float(worth) for worth in self.means(name)[:, self.marks.index(samples)]]


@dataclass(frozen=True)
class Gain:
    """What a controller has over another at the end, replicate by replicate, and Holm's p."""

    controller: str
    over: str
    difference: Estimate
    p: float


def hold(
    config: ContestConfig,
    objective: Objective,
    facts: Mapping[str, Any],
    watch: Watch = lambda done, total: None,
) -> Contest:
    """Let every controller search the objective."""
    marks = _marks(config.samples)
    names = get_args(ControllerName)
    curves = {}
    for place, name in enumerate(names):
        make = controllers()[name]
        searchers = [
            _Searcher(make(objective.space, seed), seed, objective, config.lag)
            for seed in range(config.seeds)
        ]
        points = []
        for number in range(config.samples):
            rows = [searcher.ask() for searcher in searchers]
            for searcher, row, worth in zip(searchers, rows, objective.worths(rows), strict=True):
                searcher.hear(row, worth)
            if number + 1 in marks:
                points.append([round(searcher.choice, 5) for searcher in searchers])
            watch(place * config.samples + number + 1, len(names) * config.samples)
        curves[name] = tuple(zip(*points, strict=True))
    return Contest(
        config, objective.noise, objective.optimum, marks, curves, dict(facts), environment()
    )


def gains(contest: Contest) -> list[Gain]:
    """What each controller has over chance after all samples, then what they have over another."""
    last = contest.config.samples
    others = [name for name in contest.curves if name != CHANCE]
    pairs = [*((name, CHANCE) for name in others), *combinations(others, 2)]
    found = [
        np.subtract(contest.after(name, last), contest.after(over, last)).tolist()
        for name, over in pairs
    ]
    p_values = holm([p_different(differences) for differences in found])
    return [
        Gain(*pair, estimate(differences), p)
        for pair, differences, p in zip(pairs, found, p_values, strict=True)
    ]


class _Searcher:
    """A controller, what it has asked for, and what its user would choose.

    A network that it asks for again is not run again, so it is worth to it what it was before.
    """

    def __init__(self, controller: Controller, seed: int, objective: Objective, lag: int) -> None:
        self.controller, self.seed, self.objective, self.lag = controller, seed, objective, lag
        self.rng = np.random.default_rng((NOISE, seed))
        self.rewards: dict[Hashable, float] = {}
        self.untold: list[Choices] = []
        self.asked = 0
        self.best, self.choice = -np.inf, -np.inf  # its reward, and its worth

    def ask(self) -> Choices:
        if len(self.untold) == self.lag:
            row = self.untold.pop(0)
            self.controller.tell(row, self.rewards[self.objective.identity(row)])
        self.asked += 1
        return self.controller.ask(self.asked - 1)

    def hear(self, row: Choices, worth: float) -> None:
        self.untold.append(row)
        name = self.objective.identity(row)
        if name in self.rewards:
            return
        reward = worth + self.objective.noise * float(self.rng.standard_normal())
        self.rewards[name] = reward
        if reward > self.best:
            self.best, self.choice = reward, self.objective.judged(row, self.seed)


def table_marks(samples: int) -> list[int]:
    """The few numbers of samples that a table shows: a fifth, two fifths, … of all."""
    return [samples * part // 5 for part in range(1, 6)]


def _marks(samples: int) -> tuple[int, ...]:
    """Numbers of samples at which a curve is kept: close together at first, those of the table
    among them.
    """
    early = np.geomspace(1, samples / 5, MARKS // 2)
    late = np.linspace(samples / 5, samples, MARKS // 2)
    marks = np.unique(np.concatenate([early, late]).round().astype(int))
    return tuple(sorted({*marks.tolist(), *table_marks(samples)}))


def objective(config: ContestConfig, table: Table | None) -> tuple[Objective, dict[str, Any]]:
    """What a contest is held on, and what is to be known of that. Raises UserError where there is
    no table to replay, or too small a one.
    """
    where = SearchConfig(space=config.space).searched_space()
    if config.name == "synthetic":
        return Planted(where, config.seeds), {}
    if table is None:
        raise UserError("there is no table to replay; `spinenet search-table` trains one")
    from experiments.search.surrogate import Surrogate  # with scikit-learn

    model = Surrogate(table, where, config.seeds)
    return model, {**asdict(model.error), "table": digest(table)}


def digest(table: Table) -> str:
    """What tells a table from another: its runs."""
    runs = sorted(f"{run.run_id} {run.ap}" for run in table.runs)
    return hashlib.sha256("\n".join(runs).encode()).hexdigest()[:16]


def is_of(contest: Contest, table: Table | None) -> bool:
    """Whether a contest that was held before was held on this table, or on none."""
    return contest.facts.get("table") in (None, table and digest(table))
