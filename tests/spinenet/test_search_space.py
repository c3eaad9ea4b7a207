"""Search spaces: their sizes, and rows of choices as networks and back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinenet import genotype as genotypes
from spinenet.derivations import sequential
from spinenet.families import FAMILIES
from spinenet.genotype import OUTPUT_LEVELS, BlockSpec, GenotypeError
from spinenet.search.space import KINDS, Space, space, spaces

SMALL = Space("small", (2, 2), (2, 3, 3), adjusts=True, window=2)


def test_the_sizes_are_the_papers():
    assert space("spinenet").sizes() == {
        "scale permutations": 435_456_000,
        "cross-scale connections": pytest.approx(8.3497e20, rel=1e-4),
        "level adjustment": 1_048_576,
        "block kinds": 32_768,
    }
    assert list(space("r0-sp53").sizes()) == ["scale permutations", "cross-scale connections"]
    assert list(space("fish").sizes()) == ["cross-scale connections"]


def test_the_number_of_rows_counts_what_differs():
    orders = len(set(permutations(SMALL.intermediates))) * 120
    offsets = 3 * 4 * 4  # level 2 cannot go down
    fixed = replace(SMALL, order=(2, 3, 3, *OUTPUT_LEVELS), adjusts=False)
    assert fixed.rows() == 1 * 1 * 1 * 10 * 15 * 21 * 28 * 36
    assert SMALL.rows() == fixed.rows() * orders * offsets * 2**8


@pytest.mark.parametrize(
    ("facts", "told"), [({"stem": (2,)}, "two blocks"), ({"window": 1}, "window 1")]
)
def test_spaces_without_two_parents_to_choose_from_are_refused(facts, told):
    with pytest.raises(GenotypeError, match=told):
        replace(SMALL, **facts)


@pytest.mark.parametrize("name", spaces())
def test_ten_thousand_samples_are_networks_of_the_space(name):
    searched, rng = space(name), np.random.default_rng(0)
    for _ in range(10_000 // len(spaces())):
        row = searched.sample(rng)
        found = searched.decode(row)
        assert searched.decode(searched.encode(found)).content() == found.content()
        if name in FAMILIES:
            assert FAMILIES[name].admits(found)


@pytest.mark.parametrize(
    ("network", "where"),
    [
        ("spinenet-49", "spinenet"),
        ("r0-sp53", "r0-sp53"),
        ("r0-sp53", "spinenet"),
        ("r23-sp30",) * 2,
    ],
)
def test_the_papers_networks_are_in_their_spaces(network, where):
    known, searched = genotypes.load(network), space(where)
    assert searched.decode(searched.encode(known)).content() == known.content()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_a_row_without_adjustment_comes_back_as_it_was(seed):
    searched = space("r14-sp39")
    row = searched.sample(np.random.default_rng(seed))
    assert searched.encode(searched.decode(row)) == row


def test_a_given_order_is_adjusted_from_its_levels():
    given = replace(SMALL, order=(2, 3, 3, *OUTPUT_LEVELS))
    assert given.adjusts
    rng = np.random.default_rng(0)
    found = [given.decode(given.sample(rng)) for _ in range(500)]
    levels = [{one.blocks[place].level for one in found} for place in range(3)]
    assert levels == [{2, 3, 4}, {2, 3, 4, 5}, {2, 3, 4, 5}]


def test_orders_and_parents_are_sampled_evenly():
    rng = np.random.default_rng(0)
    rows = [SMALL.sample(rng) for _ in range(4000)]
    orders = Counter(row[0] for row in rows)
    assert orders[2] / 4000 == pytest.approx(1 / 3, abs=0.04)
    pairs = Counter(row[8 + 2 * 7 : 8 + 2 * 8] for row in rows)  # of the last output, of 9 before
    assert len(pairs) == 36
    assert max(pairs.values()) < 2 * min(pairs.values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda g: replace(g, stem=(2, 2, 3)), "its stem is"),
        (lambda g: sequential(g), "every block has two"),
        (lambda g: replace(g, blocks=g.blocks[:-1]), "levels 3 to 7"),
        (lambda g: _with_block(g, 0, replace(g.blocks[0], kind=KINDS[1])), "of the kinds"),
        (lambda g: _with_block(g, 0, replace(g.blocks[0], level=3)), "no order of"),
        (lambda g: _with_block(g, 8, BlockSpec(4, KINDS[0], (0, 9))), "first parent 0"),
    ],
)
def test_networks_outside_are_refused_with_the_reason(change, told):
    with pytest.raises(GenotypeError, match=told):
        space("r0-sp53").encode(change(genotypes.load("r0-sp53")))


def _with_block(genotype, index, block):
    blocks = list(genotype.blocks)
    blocks[index] = block
    return replace(genotype, blocks=tuple(blocks))


@pytest.mark.parametrize(("row", "told"), [((9,), "order 9"), ((2,), "no choice is left")])
def test_rows_that_are_none_are_refused(row, told):
    with pytest.raises(GenotypeError, match=told):
        space("r0-sp53").decode(row)


def test_a_row_that_is_too_long_is_refused():
    row = space("fish").sample(np.random.default_rng(0))
    with pytest.raises(GenotypeError, match="1 choices are left over"):
        space("fish").decode((*row, 0))


def test_an_unknown_space_is_told_the_nearest():
    with pytest.raises(GenotypeError, match="did you mean 'hourglass'"):
        space("hourglas")
