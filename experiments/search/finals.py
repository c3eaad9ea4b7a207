"""The best networks of a search trained again, with other seeds.

The best of hundreds of rewards is that of a good network and a lucky seed. Which of the best few is
good is for seeds to say that did not choose them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from experiments.search.candidates import Search
from experiments.search.report import Standing
from experiments.study import Cell

SEEDS = 2  # beside the search's own


def finals(made: Search, found: Sequence[Standing]) -> list[Cell]:
    """The runs of these networks with the seeds that follow the search's own."""
    return [cell for one in found for cell in _again(made, one)]


def verdicts(made: Search, found: Sequence[Standing]) -> dict[int, float]:
    """Sample's number → mean reward over the other seeds, for networks that have run with all."""
    again = {one.number: [cell.run_id for cell in _again(made, one)] for one in found}
    records = made.store.records(run for runs in again.values() for run in runs)
    told = {}
    for number, runs in again.items():
        known = [made.worth(records[run]) for run in runs if records[run].is_settled]
        if len(known) == SEEDS:
            told[number] = fmean(known)
    return told


def winner(found: Sequence[Standing], told: Mapping[int, float]) -> Standing:
    """The best by the other seeds, of which `verdicts` has told, or by its reward where none has
    run with them.
    """
    if not told:
        return found[0]
    return max((one for one in found if one.number in told), key=lambda one: told[one.number])


def _again(made: Search, one: Standing) -> list[Cell]:
    genotype = made.asked[one.number].genotype
    first = made.config.run_seed + 1
    return [made.run_of(genotype, seed) for seed in range(first, first + SEEDS)]
