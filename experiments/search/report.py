"""What a search has found: the best so far, the front of cost and accuracy, where the levels go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from experiments.search.candidates import Tried

MOST_ROWS = 10
EARLY = 0.25  # the first share of a search, against which the last is set


@dataclass(frozen=True)
class Standing:
    """A network of the search with what is known of it. `number` counts samples as they were asked
    for, from 0; `told` as their rewards came, from 1.
    """

    number: int
    told: int
    name: str
    reward: float
    macs_m: float
    params_m: float
    run_id: str
    levels: str


def standings(tried: Sequence[Tried]) -> list[Standing]:
    """Every network that was trained, once, the best first."""
    found: dict[str, Standing] = {}
    for told, one in enumerate(tried, start=1):
        if one.result is None:
            continue
        genotype = one.candidate.genotype
        found.setdefault(
            one.result.run_id,
            Standing(
                number=one.candidate.number,
                told=told,
                name=genotype.name,
                reward=one.reward,
                macs_m=one.result.macs_b * 1e3,
                params_m=one.result.params_m,
                run_id=one.result.run_id,
                levels="".join(str(block.level) for block in genotype.blocks),
            ),
        )
    return sorted(found.values(), key=lambda s: (-s.reward, s.number))


def best_so_far(tried: Sequence[Tried]) -> list[float]:
    """The largest reward after each sample, as they were told."""
    return list(accumulate((one.reward for one in tried), max))


def front(found: Sequence[Standing]) -> list[Standing]:
    """Networks that no other beats in reward at fewer or as many multiply-adds, cheapest first."""
    kept: list[Standing] = []
    for one in sorted(found, key=lambda s: (s.macs_m, -s.reward)):
        if not kept or one.reward > kept[-1].reward:
            kept.append(one)
    return kept


def level_shares(tried: Sequence[Tried]) -> dict[int, tuple[float, float]]:
    """Level → its share of the intermediate blocks in the first quarter of the search, and in the
    last: what the controller has moved towards.
    """
    part = max(1, int(len(tried) * EARLY))
    early, late = (_shares(some) for some in (tried[:part], tried[-part:]))
    return {level: (early[level], late[level]) for level in sorted(early.keys() | late.keys())}


def _shares(tried: Sequence[Tried]) -> Counter[int]:
    counted = Counter(
        block.level for t in tried for block in t.candidate.genotype.blocks if not block.is_output
    )
    total = sum(counted.values())
    return Counter({level: count / total for level, count in counted.items()})
