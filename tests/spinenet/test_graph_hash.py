"""The hash of a network is blind to how it is written, and to nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spinenet import genotype as genotypes
from spinenet.genotype import BOTTLENECK, BlockSpec, Genotype
from spinenet.search.graph_hash import graph_hash
from spinenet.search.space import space


def reordered(genotype: Genotype, rng: np.random.Generator) -> tuple[Genotype, dict[int, int]]:
    """The same edges, blocks in another topological order, and each node's new place."""
    start, count = len(genotype.stem), len(genotype.nodes)
    merged = genotype.merged()
    needs = {
        i: {p for p in (*genotype.nodes[i].parents, *merged.get(i, ())) if p >= start}
        for i in range(start, count)
    }
    order: list[int] = []
    while len(order) < len(needs):
        ready = [i for i in needs if i not in order and needs[i] <= set(order)]
        order.append(int(rng.choice(ready)))
    place = {old: start + new for new, old in enumerate(order)} | {i: i for i in range(start)}
    blocks = tuple(
        replace(
            genotype.nodes[old],
            parents=tuple(
                rng.permutation([place[p] for p in genotype.nodes[old].parents]).tolist()
            ),
        )
        for old in order
    )
    return replace(genotype, name="again", blocks=blocks), place


@given(st.integers(0, 2**32 - 1), st.sampled_from(["spinenet", "r23-sp30", "fish"]))
@settings(max_examples=60, deadline=None)
def test_another_order_of_the_blocks_is_the_same_network(seed, name):
    rng = np.random.default_rng(seed)
    found = space(name).decode(space(name).sample(rng))
    other, place = reordered(found, rng)
    merged = {place[i]: {place[j] for j in orphans} for i, orphans in found.merged().items()}
    # Blocks that nobody reads are taken up in their order, so another order may merge others.
    assume({i: set(orphans) for i, orphans in other.merged().items()} == merged)
    assert graph_hash(other) == graph_hash(found)


def test_every_single_change_of_a_small_network_is_another_network():
    """All networks of four inner choices, against isomorphism tried over all orders by hand."""
    seen: dict[str, Genotype] = {}
    for level, a, b in product((3, 4), ((0, 1), (0, 2), (1, 2)), ((0, 1), (0, 3), (2, 3))):
        blocks = (
            BlockSpec(level, BOTTLENECK, (0, 1)),
            BlockSpec(4, BOTTLENECK, a),
            BlockSpec(5, BOTTLENECK, b, is_output=True),
        )
        found = Genotype("g", (2, 2), blocks)
        name = graph_hash(found)
        for other_name, other in seen.items():
            assert (other_name == name) == _isomorphic(found, other), (found, other)
        seen.setdefault(name, found)
    assert 3 < len(seen) < 18


def _isomorphic(a: Genotype, b: Genotype) -> bool:
    """By trying: the built inner blocks in either order."""
    return any(_described(a, order) == _described(b, (2, 3)) for order in ((2, 3), (3, 2)))


def _described(genotype: Genotype, order: tuple[int, int]) -> object:
    place = {0: 0, 1: 1, 4: 4, **{old: new for new, old in zip((2, 3), order, strict=True)}}
    live, merged = {4}, genotype.merged()
    for index in (4, 3, 2):
        if index in live:
            live.update(genotype.nodes[index].parents, merged.get(index, ()))
    return {
        place[i]: (
            genotype.nodes[i].level,
            tuple(sorted(place[p] for p in genotype.nodes[i].parents)) if i > 1 else (),
            tuple(sorted(place[p] for p in merged.get(i, ()))),
        )
        for i in sorted(live)
    }


def test_names_do_not_matter_and_kinds_and_widths_do():
    known = genotypes.load("spinenet-49")
    assert graph_hash(replace(known, name="x", source="y")) == graph_hash(known)
    wider = {level: 2 * width for level, width in known.widths.items()}
    assert graph_hash(replace(known, widths=wider)) != graph_hash(known)
    kinds = replace(known.blocks[0], kind="residual")
    assert graph_hash(replace(known, blocks=(kinds, *known.blocks[1:]))) != graph_hash(known)


def test_the_papers_networks_differ():
    names = genotypes.shipped()
    assert len({graph_hash(genotypes.load(name)) for name in names}) == len(names)


def test_blocks_that_are_not_built_do_not_count():
    blocks = (
        BlockSpec(3, BOTTLENECK, (0, 1)),
        BlockSpec(6, BOTTLENECK, (0, 1)),  # nobody reads it, and no output at its level takes it up
        BlockSpec(5, BOTTLENECK, (0, 2), is_output=True),
    )
    with_spare = Genotype("a", (2, 2), blocks)
    without = Genotype("b", (2, 2), (blocks[0], replace(blocks[2])))
    assert graph_hash(with_spare) == graph_hash(without)


@pytest.mark.parametrize("seed", range(3))
def test_samples_of_a_large_space_are_all_different(seed):
    rng = np.random.default_rng(seed)
    searched = space("spinenet")
    names = {graph_hash(searched.decode(searched.sample(rng))) for _ in range(200)}
    assert len(names) == 200
