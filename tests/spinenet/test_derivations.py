import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import genotypes

from spinenet.derivations import DERIVATIONS, derive, keep_long, keep_short
from spinenet.genotype import Genotype, GenotypeError, from_mapping, from_yaml, load


@pytest.mark.parametrize("name", DERIVATIONS)
@given(genotype=genotypes())
@settings(max_examples=40, deadline=None)
def test_any_derivation_of_a_valid_genotype_is_valid_and_keeps_levels_and_outputs(
    name: str, genotype: Genotype
):
    if name == "all-bottleneck" and genotype.is_mobile:
        return
    derived = derive(genotype, [name])
    assert from_yaml(derived.to_yaml()) == derived
    assert [b.level for b in derived.nodes] == [b.level for b in genotype.nodes]
    assert derived.outputs == genotype.outputs
    assert derived.name.endswith(f"+{name}")


@given(genotype=genotypes(), steps=st.lists(st.sampled_from(list(DERIVATIONS)), max_size=4))
@settings(max_examples=40, deadline=None)
def test_derivations_follow_each_other_in_any_order(genotype: Genotype, steps: list[str]):
    if genotype.is_mobile:
        steps = [step for step in steps if step != "all-bottleneck"]
    derived = derive(genotype, steps)
    assert from_mapping(derived.to_mapping()) == derived
    assert derived.name == "+".join([genotype.name, *steps])
    assert derived.content() == derive(derived, steps[-1:]).content()  # twice is once


def test_damage_leaves_r0_sp53_one_parent_per_block_the_far_or_the_near_one():
    genotype = load("r0-sp53")
    long, short = keep_long(genotype), keep_short(genotype)
    for before, far, near in zip(genotype.blocks, long.blocks, short.blocks, strict=True):
        assert far.parents == (min(before.parents),)
        assert near.parents == (max(before.parents),)
    assert not any(long.merged().values())
    assert not any(short.merged().values())


def test_undone_types_make_every_block_a_bottleneck_and_change_no_edge():
    genotype = load("spinenet-49")
    undone = derive(genotype, ["all-bottleneck"])
    assert {b.kind for b in undone.blocks} == {"bottleneck"}
    assert [b.parents for b in undone.blocks] == [b.parents for b in genotype.blocks]


def test_a_mobile_network_has_no_types_to_undo():
    with pytest.raises(GenotypeError, match="mobile"):
        derive(load("spinenet-49-mobile"), ["all-bottleneck"])


def test_a_misspelt_derivation_suggests_the_nearest():
    with pytest.raises(GenotypeError, match="did you mean 'keep-long'"):
        derive(load("r0-sp53"), ["keep_long"])
