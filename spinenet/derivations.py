"""Functions from genotype to genotype: the paper's ablations, as what they do to the graph.

Damaged connections (section 5.5): each block keeps one input, the far one, the near one, or a new
one from the block just before. What nobody reads afterwards is left out rather than merged into an
output, since a damaged block has exactly one input. Undone types: every block a bottleneck again,
as before block adjustment.

A study names derivations: `genotype: {base: r0-sp53, derive: [keep-long]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from spinenet.genotype import BOTTLENECK, Genotype, GenotypeError
from spinenet.naming import unknown

Derivation = Callable[[Genotype], Genotype]


def keep_long(genotype: Genotype) -> Genotype:
    """Each block keeps only the parent that is farthest back in order ("graph damage 1")."""
    return _one_parent(genotype, "keep-long", min)


def keep_short(genotype: Genotype) -> Genotype:
    """Each block keeps only the parent that is nearest in order ("graph damage 2")."""
    return _one_parent(genotype, "keep-short", max)


def sequential(genotype: Genotype) -> Genotype:
    """Same blocks in the same order, each fed by the block just before it ("graph damage 3").

    It is also the ladder's "permutation only" rung.
    """
    offset = len(genotype.stem)
    chain = tuple(replace(b, parents=(offset + i - 1,)) for i, b in enumerate(genotype.blocks))
    return replace(genotype, name=f"{genotype.name}+sequential", blocks=chain)


def all_bottleneck(genotype: Genotype) -> Genotype:
    """Residual blocks turned back into bottlenecks: block adjustment's choice of type undone.

    Raises GenotypeError for a mobile network, which has no types to choose from.
    """
    if genotype.is_mobile:
        raise GenotypeError(
            f"all-bottleneck: {genotype.name} is a mobile network, mbconv throughout; derive it "
            "from spinenet-49 instead"
        )
    blocks = tuple(replace(b, kind=BOTTLENECK) for b in genotype.blocks)
    return replace(genotype, name=f"{genotype.name}+all-bottleneck", blocks=blocks)


DERIVATIONS: dict[str, Derivation] = {
    "keep-long": keep_long,
    "keep-short": keep_short,
    "sequential": sequential,
    "all-bottleneck": all_bottleneck,
}


def derive(genotype: Genotype, steps: Sequence[str]) -> Genotype:
    """Apply named derivations in order. Raises GenotypeError for an unknown name."""
    for step in steps:
        if step not in DERIVATIONS:
            raise GenotypeError(unknown("derivation", step, DERIVATIONS))
        genotype = DERIVATIONS[step](genotype)
    return genotype


def _one_parent(genotype: Genotype, name: str, choose: Callable[[Sequence[int]], int]) -> Genotype:
    blocks = tuple(replace(b, parents=(choose(b.parents),)) for b in genotype.blocks)
    return replace(genotype, name=f"{genotype.name}+{name}", blocks=blocks, merge_orphans=False)
