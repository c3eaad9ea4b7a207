"""Networks of which the paper gives the shape but not the graph, as constraints to be searched in.

Table 1 lists, for R50 turned step by step into a scale-permuted network, how many blocks each level
has in the stem and in the permuted part. Of R35-SP18 and R14-SP39 that is all there is. Of the
hourglass and the fish, which the paper's ablation sets against the learned order, the order of the
levels is known and the connections were learned. No edges are invented here: a family says which
genotypes belong to it.

All have 17 blocks, bottlenecks throughout, and end in one output for each of the levels 3 to 7.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from spinenet.genotype import BOTTLENECK, OUTPUT_LEVELS, Genotype, GenotypeError
from spinenet.naming import unknown

TABLE_1 = "SpineNet (CVPR 2020) table 1"
ABLATION = "SpineNet (CVPR 2020) ablation of scale permutation (table 7 in v3)"


@dataclass(frozen=True)
class Family:
    """The genotypes with this stem and this number of permuted blocks per level, in this order of
    levels where one is given.
    """

    name: str
    stem: tuple[int, ...]
    blocks: Mapping[int, int]
    source: str
    order: tuple[int, ...] | None = None

    def violations(self, genotype: Genotype) -> list[str]:
        """Why a genotype is not of the family; empty when it is."""
        levels = tuple(b.level for b in genotype.blocks)
        found = []
        if genotype.stem != self.stem:
            found.append(f"its stem is {list(genotype.stem)}, not {list(self.stem)}")
        if Counter(levels) != Counter(self.blocks):
            counts = dict(sorted(Counter(levels).items()))
            found.append(f"it has {counts} blocks by level, not {dict(self.blocks)}")
        elif self.order is not None and levels != self.order:
            found.append(f"its levels come in the order {list(levels)}, not {list(self.order)}")
        last = genotype.blocks[-len(OUTPUT_LEVELS) :]
        outputs = sum(b.is_output for b in genotype.blocks)
        if outputs != len(last) or {b.level for b in last if b.is_output} != set(OUTPUT_LEVELS):
            found.append("its last five blocks are not its outputs, one for each level from 3 to 7")
        if any(b.kind != BOTTLENECK for b in genotype.nodes):
            found.append("a block of it is no bottleneck")
        return found

    def admits(self, genotype: Genotype) -> bool:
        """Whether a genotype is of the family."""
        return not self.violations(genotype)


def _by_count(name: str, stem: tuple[int, ...], permuted: tuple[int, ...]) -> Family:
    """A row of table 1: blocks of the stem at L2 to L5, permuted blocks at L2 to L7."""
    levels = tuple(level for level, count in enumerate(stem, start=2) for _ in range(count))
    return Family(name, levels, dict(enumerate(permuted, start=2)), TABLE_1)


def _by_order(name: str, order: tuple[int, ...]) -> Family:
    """An order of all 17 blocks, of which the first two are the stem."""
    permuted = order[2:]
    counts = dict(sorted(Counter(permuted).items()))
    return Family(name, order[:2], counts, ABLATION, permuted)


FAMILIES = {
    family.name: family
    for family in (
        _by_count("r35-sp18", (2, 3, 5, 1), (1, 1, 1, 1, 1, 1)),
        _by_count("r23-sp30", (2, 2, 2, 1), (1, 2, 4, 1, 1, 1)),
        _by_count("r14-sp39", (1, 1, 1, 1), (2, 3, 5, 1, 1, 1)),
        _by_count("r0-sp53", (2, 0, 0, 0), (1, 4, 6, 2, 1, 1)),
        _by_order("hourglass", (2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 5, 7, 6, 5, 4, 3)),
        _by_order("fish", (2, 2, 3, 3, 4, 4, 4, 5, 4, 4, 3, 2, 3, 4, 5, 6, 7)),
    )
}


def family(name: str) -> Family:
    """A family by name. Raises GenotypeError with the nearest name for an unknown one."""
    if name not in FAMILIES:
        raise GenotypeError(unknown("family", name, FAMILIES))
    return FAMILIES[name]
