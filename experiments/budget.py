"""What to run when there is only so much time: what lets most claims be judged per hour is first.

A claim is judged by runs of both its variants over the fewest seeds that give an interval, two.
Sets of runs are taken greedily by claims completed per second, a run that several claims need
being paid for once; then the same with one seed more, and so on; last, single runs that no claim
needs, the cheapest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments.pricing import Price
from experiments.study import COUNTED, Cell, Study

FEWEST_SEEDS = 2

Grid = tuple[Study, Sequence[Cell]]


@dataclass(frozen=True)
class Choice:
    """Run ids in the order in which they were taken, their seconds of one process, and the claims
    that are judged by them, as STUDY: TEXT.
    """

    runs: tuple[str, ...]
    seconds: float
    claims: tuple[str, ...]


@dataclass(frozen=True)
class _Need:
    """A claim, and the runs that it still waits for."""

    claim: str
    runs: frozenset[str]


def choose(
    grids: Sequence[Grid], prices: Mapping[str, Price], budget_s: float, workers: int
) -> Choice:
    """The runs to make within `budget_s` by so many at once. `prices` are those of the missing runs
    by run id; one that alone takes longer than the budget is never chosen.
    """
    taken: dict[str, None] = {}
    order = dict.fromkeys(cell.run_id for _, cells in grids for cell in cells)
    affordable = {run: p.seconds for run, p in prices.items() if p.seconds <= budget_s}
    left = budget_s * workers
    seeds = max(cell.seed for _, cells in grids for cell in cells) + 1
    first = min(FEWEST_SEEDS, seeds)
    for level in range(first, seeds + 1):
        needs = [n for n in _needs(grids, level, prices) if n.runs <= affordable.keys()]
        while best := _best(needs, taken, affordable, left):
            left -= sum(affordable[run] for run in best.runs - taken.keys())
            taken |= {run: None for run in order if run in best.runs - taken.keys()}
    for run in _by_seed_and_price(grids, affordable):
        if run not in taken and affordable[run] <= left:
            left -= affordable[run]
            taken[run] = None
    # Fewer seeds give no interval, by which a claim could be judged.
    settled = _needs(grids, first, prices) if seeds >= FEWEST_SEEDS else ()
    judged = (n.claim for n in settled if n.runs and n.runs <= taken.keys())
    return Choice(tuple(taken), sum(affordable[run] for run in taken), tuple(judged))


def _needs(grids: Sequence[Grid], seeds: int, prices: Mapping[str, Price]) -> Iterator[_Need]:
    for study, cells in grids:
        for claim in study.claims:
            if claim.metric in COUNTED:
                continue
            wanted = [c for c in cells if c.seed < seeds and c.variant in (claim.a, claim.b)]
            if {c.variant for c in wanted} == {claim.a, claim.b}:
                runs = frozenset(c.run_id for c in wanted if c.run_id in prices)
                yield _Need(f"{study.id}: {claim.text}", runs)


def _best(
    needs: Sequence[_Need], taken: Mapping[str, None], seconds: Mapping[str, float], left: float
) -> _Need | None:
    """The set of runs that completes most claims per second, of those that fit."""
    best, most = None, 0.0
    for need in needs:
        more = need.runs - taken.keys()
        cost = sum(seconds[run] for run in more)
        if not more or cost > left:
            continue
        then = taken.keys() | more
        rate = sum(bool(n.runs - taken.keys()) and n.runs <= then for n in needs) / cost
        if rate > most:
            best, most = need, rate
    return best


def _by_seed_and_price(grids: Sequence[Grid], seconds: Mapping[str, float]) -> list[str]:
    cells = [c for _, grid in grids for c in grid if c.run_id in seconds]
    ordered = sorted(cells, key=lambda c: (c.seed, seconds[c.run_id]))
    return list(dict.fromkeys(c.run_id for c in ordered))
