"""What controllers are compared on when training each candidate is out of the question.

`Planted` has a known optimum: a hidden network, and a worth that says how much of it a row has. The
other objective, a surrogate of the table of trained networks, is in `experiments.search.surrogate`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Protocol

import numpy as np

from spinenet.search.space import Choices, Space, walked

HIDDEN = 7919  # of the hidden rows' seeds, which no controller's are derived from


class Objective(Protocol):
    """Worths of rows of one space. A controller is told a worth with `noise` around it (standard
    deviation), and what it would choose is judged; `optimum` is the largest worth, where that is
    known.
    """

    space: Space
    noise: float
    optimum: float | None

    def worths(self, rows: Sequence[Choices]) -> Sequence[float]:
        """What is told of each row; row i is that of the searcher with seed i."""
        ...

    def judged(self, row: Choices, seed: int) -> float:
        """What a choice of the searcher with this seed is truly worth."""
        ...

    def identity(self, row: Choices) -> Hashable:
        """Rows with the same are the same, and none of them is told of twice."""
        ...


class Planted:
    """A hidden row for each seed. Half of a row's worth is its share of choices like the hidden
    ones, half the share of blocks of which every choice is: a block's place, parents, offset and
    kind are worth more together than one by one. Only the hidden row has worth 1.
    """

    noise: float = 0.0
    optimum: float | None = 1.0

    def __init__(self, space: Space, seeds: int) -> None:
        self.space = space
        self.hidden = [space.sample(np.random.default_rng((HIDDEN, i))) for i in range(seeds)]
        places: dict[int, list[int]] = defaultdict(list)
        for place, (decision, _) in enumerate(walked(space, self.hidden[0])):
            places[decision.block].append(place)  # the same in every row
        self.blocks = list(places.values())

    def worths(self, rows: Sequence[Choices]) -> list[float]:
        """From 0 to 1."""
        return [self._worth(row, hidden) for row, hidden in zip(rows, self.hidden, strict=True)]

    def judged(self, row: Choices, seed: int) -> float:
        """What is told is the truth."""
        return self._worth(row, self.hidden[seed])

    def identity(self, row: Choices) -> Choices:
        """Every row is another: its worth is not of the network."""
        return row

    def _worth(self, row: Choices, hidden: Choices) -> float:
        alike = np.equal(row, hidden)
        return float(alike.mean() + np.mean([alike[block].all() for block in self.blocks])) / 2
