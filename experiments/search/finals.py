"""The best networks of a search trained again, with other seeds.

The best of hundreds of rewards is that of a good network and a lucky seed. Which of the best few is
good is for seeds to say that did not choose them.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from experiments.search.candidates import Search, settled
from experiments.search.report import Standing
from experiments.study import Cell

SEEDS = 2  # beside the search's own


def finals(made: Search, found: Sequence[Standing]) -> list[Cell]:
    """The runs of these networks with the seeds that follow the search's own."""
    return [cell for one in found for cell in _again(made, one)]


def verdicts(made: Search, found: Sequence[Standing]) -> dict[int, float]:
    """Sample's number → mean reward over the other seeds, for networks that have run with all."""
    told = {}
    for one in found:
        records = [settled(made.store, cell) for cell in _again(made, one)]
        known = [made.worth(record) for record in records if record is not None]
        if len(known) == SEEDS:
            told[one.number] = fmean(known)
    return told


def winner(made: Search, found: Sequence[Standing]) -> Standing:
    """The best by the other seeds, or by its reward where none has run with them."""
    told = verdicts(made, found)
    if not told:
        return found[0]
    return max((one for one in found if one.number in told), key=lambda one: told[one.number])


def _again(made: Search, one: Standing) -> list[Cell]:
    genotype = made.asked[one.number].genotype
    first = made.config.run_seed + 1
    return [made.run_of(genotype, seed) for seed in range(first, first + SEEDS)]
