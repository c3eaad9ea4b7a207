"""Who proposes the next network: chance, or evolution; the paper's own controller is in `policy`.

All follow one protocol. `ask(number)` gives the row of choices of candidate `number`, `tell` the
reward of a row that was tried. A row that cannot be tried is asked for again, by another `attempt`.
What is asked depends on the seed, the number, the attempt and what has been told so far, in that
order, and on nothing else: a search that was stopped is brought back by telling the controller
again what it knew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from spinenet.search.space import Choices, Decision, Space

ORDERS = ("order", "output order")


class Controller(Protocol):
    """A searcher of one space. Rewards are to be made large."""

    def ask(self, number: int, attempt: int = 0) -> Choices:
        """The row of candidate `number`, counted from 0; other attempts are other draws."""
        ...

    def tell(self, choices: Choices, reward: float) -> None:
        """What a row is worth."""
        ...


class RandomSearch:
    """Rows drawn evenly, whatever is told: what every other controller has to beat."""

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        self.space, self.seed = space, seed

    def ask(self, number: int, attempt: int = 0) -> Choices:
        """A row of its own for each number and attempt."""
        return self.space.sample(generator(self.seed, number, attempt))

    def tell(self, choices: Choices, reward: float) -> None:
        """Nothing is learned."""


class RegularisedEvolution:
    """The best of a few members of a population changed in one choice; the oldest member goes.

    Aging keeps a lucky reward from living for ever (Real et al., Regularized Evolution for Image
    Classifier Architecture Search, AAAI 2019, algorithm 1).
    """

    def __init__(
        self, space: Space, *, seed: int = 0, population: int = 50, tournament: int = 10
    ) -> None:
        if not 1 <= tournament <= population:
            raise ValueError(f"tournament {tournament} must be in 1 to population {population}")
        self.space, self.seed, self.tournament = space, seed, tournament
        self.members: deque[tuple[Choices, float]] = deque(maxlen=population)

    def ask(self, number: int, attempt: int = 0) -> Choices:
        """A random row until the population is complete, then a changed one."""
        rng = generator(self.seed, number, attempt)
        if len(self.members) < (self.members.maxlen or 0):
            return self.space.sample(rng)
        drawn = rng.choice(len(self.members), self.tournament, replace=False)
        best, _ = max((self.members[i] for i in drawn), key=lambda member: member[1])
        return mutate(self.space, best, rng)

    def tell(self, choices: Choices, reward: float) -> None:
        """The row joins the population, and the oldest leaves a full one."""
        self.members.append((choices, reward))


def generator(seed: int, number: int, attempt: int) -> np.random.Generator:
    """What a candidate is drawn with."""
    return np.random.default_rng((seed, number, attempt) if attempt else (seed, number))


def mutate(space: Space, choices: Choices, rng: np.random.Generator) -> Choices:
    """A row that differs in one choice, in two places of an order, or in what follows from that.

    Later choices stay where they still are options, and are drawn again where they are not.
    """
    taken = space.walk(_following(choices, rng))
    changeable = [i for i, (decision, _) in enumerate(taken) if _others(taken, i, decision)]
    place = int(rng.choice(changeable))
    decision, old = taken[place]
    row = list(choices)
    if decision.kind in ORDERS:
        other = int(rng.choice(_others(taken, place, decision)))
        row[place], row[other] = row[other], old
    else:
        row[place] = int(rng.choice([value for value in decision.options if value != old]))
    return tuple(choice for _, choice in space.walk(_following(tuple(row), rng)))


def _others(taken: list[tuple[Decision, int]], place: int, decision: Decision) -> list[int]:
    """What a decision could become: places to swap with, or other options."""
    if decision.kind not in ORDERS:
        return [value for value in decision.options if value != taken[place][1]]
    return [
        i
        for i, (other, level) in enumerate(taken)
        if other.kind == decision.kind and level != taken[place][1]
    ]


def _following(row: Choices, rng: np.random.Generator) -> Callable[[Decision], int]:
    """Choices of a row in order, drawn anew where they are no option."""
    rest = iter(row)

    def choose(decision: Decision) -> int:
        choice = next(rest)
        return choice if choice in decision.options else int(rng.choice(decision.options))

    return choose
