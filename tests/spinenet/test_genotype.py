import copy
import json
import pickle
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import genotypes

from spinenet.derivations import derive, sequential
from spinenet.genotype import (
    BlockSpec,
    Genotype,
    GenotypeError,
    from_mapping,
    from_yaml,
    load,
    shipped,
)

B, R = "bottleneck", "residual"

# tensorflow/tpu: modeling/architecture/spinenet.py, SPINENET_BLOCK_SPECS.
SPINENET_49 = [
    (2, B, (0, 1), False),
    (4, R, (0, 1), False),
    (3, B, (2, 3), False),
    (4, B, (2, 4), False),
    (6, R, (3, 5), False),
    (4, B, (3, 5), False),
    (5, R, (6, 7), False),
    (7, R, (6, 8), False),
    (5, B, (8, 9), False),
    (5, B, (8, 10), False),
    (4, B, (5, 10), True),
    (3, B, (4, 10), True),
    (5, B, (7, 12), True),
    (7, B, (5, 14), True),
    (6, B, (12, 14), True),
]
# Figure 4c of the paper, all bottlenecks: level, parents, output.
R0_SP53 = [
    (2, (0, 1), False),
    (3, (0, 1), False),
    (3, (2, 3), False),
    (4, (2, 4), False),
    (4, (3, 5), False),
    (3, (5, 6), False),
    (5, (4, 7), False),
    (4, (4, 8), False),
    (4, (8, 9), False),
    (4, (8, 10), False),
    (3, (4, 10), True),
    (4, (6, 7), True),
    (5, (8, 13), True),
    (7, (6, 9), True),
    (6, (7, 9), True),
]

SMALL = """\
name: small
stem: [2, 2]
blocks:
  - [3, bottleneck, [0, 1], output]
  - [4, residual, [2], output]
"""


def changed(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


def test_spinenet_49_is_the_official_block_list():
    assert [BlockSpec(*row) for row in SPINENET_49] == list(load("spinenet-49").blocks)


def test_r0_sp53_is_the_papers_figure():
    rows = [BlockSpec(level, B, parents, out) for level, parents, out in R0_SP53]
    assert rows == list(load("r0-sp53").blocks)


@pytest.mark.parametrize("name", shipped())
def test_shipped_genotype_has_official_widths_five_outputs_and_a_source(name: str):
    genotype = load(name)
    assert genotype.name == name
    mobile = {1: 16, 2: 24, 3: 40, 4: 80, 5: 112, 6: 112, 7: 112}
    official = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
    assert genotype.widths == (mobile if genotype.is_mobile else official)
    assert list(genotype.outputs) == [3, 4, 5, 6, 7]
    assert genotype.source


def test_the_mobile_network_is_spinenet_49_behind_one_more_block_of_level_2():
    mobile, regular = load("spinenet-49-mobile"), load("spinenet-49")
    first, *rest = mobile.blocks
    assert (first.level, first.parents) == (2, (0, 1))
    assert [(b.level, b.parents, b.is_output) for b in rest] == [
        (b.level, tuple(p + 1 for p in b.parents), b.is_output) for b in regular.blocks
    ]
    assert {node.kind for node in mobile.nodes} == {"mbconv"}


@pytest.mark.parametrize("name", shipped())
def test_shipped_genotype_survives_yaml_without_loss(name: str):
    genotype = load(name)
    assert from_yaml(genotype.to_yaml()) == genotype
    assert from_mapping(genotype.to_mapping()) == genotype


@given(genotype=genotypes())
@settings(max_examples=60, deadline=None)
def test_any_valid_genotype_survives_yaml_without_loss(genotype: Genotype):
    assert from_yaml(genotype.to_yaml()) == genotype
    assert from_mapping(genotype.to_mapping()) == genotype


def test_only_the_unread_bottleneck_of_level_5_joins_an_output_of_spinenet_49():
    assert load("spinenet-49").merged() == {12: (), 13: (), 14: (11,), 15: (), 16: ()}


def test_only_the_unread_bottleneck_of_level_4_joins_an_output_of_r0_sp53():
    assert load("r0-sp53").merged() == {12: (), 13: (11,), 14: (), 15: (), 16: ()}


def test_an_unread_block_of_other_channels_joins_nothing():
    genotype = load("spinenet-49")
    blocks = tuple(replace(b, kind=R) if i == 9 else b for i, b in enumerate(genotype.blocks))
    assert not any(replace(genotype, blocks=blocks).merged().values())


def test_a_block_read_only_after_an_output_joins_that_output_first():
    late = (
        BlockSpec(3, B, (0,)),
        BlockSpec(3, B, (1,), True),
        BlockSpec(4, B, (2, 3), True),
    )
    assert Genotype(name="late", stem=(2, 2), blocks=late).merged() == {3: (2,), 4: ()}


@given(genotype=genotypes())
@settings(max_examples=60, deadline=None)
def test_each_unread_block_joins_at_most_one_output_of_its_own_shape(genotype: Genotype):
    nodes, merged = genotype.nodes, genotype.merged()
    assert set(merged) == set(genotype.outputs.values())
    joined = [j for orphans in merged.values() for j in orphans]
    assert len(joined) == len(set(joined))
    for output, orphans in merged.items():
        for j in orphans:
            assert (nodes[j].level, nodes[j].kind) == (nodes[output].level, nodes[output].kind)
            assert not any(j in node.parents for node in nodes[: output + 1])


def test_a_genotype_that_all_share_cannot_be_changed():
    with pytest.raises(TypeError, match="make another genotype"):
        load("spinenet-49").widths[3] = 1  # type: ignore[index]
    with pytest.raises(TypeError, match="make another genotype"):
        load("spinenet-49").widths.update({3: 1})  # type: ignore[attr-defined]
    given = {2: 8, 3: 8}
    genotype = Genotype("one", (2,), (BlockSpec(3, B, (0,), True),), given)
    given[3] = 16
    assert genotype.widths[3] == 8


def test_lists_make_the_same_genotype_as_tuples_and_equal_ones_have_one_hash():
    lists = Genotype("one", [2, 2], [BlockSpec(3, B, [0, 1], True)], {3: 8, 2: 4})  # type: ignore[arg-type]
    tuples = Genotype("one", (2, 2), (BlockSpec(3, B, (0, 1), True),), {2: 4, 3: 8})
    assert lists == tuples
    assert len({lists, tuples, load("spinenet-49")}) == 2


def test_a_genotype_can_be_copied_pickled_and_taken_apart():
    genotype = load("spinenet-49")
    assert copy.deepcopy(genotype) == genotype
    again = pickle.loads(pickle.dumps(genotype))
    assert again == genotype
    assert hash(again) == hash(genotype)
    assert json.dumps(asdict(genotype))


@pytest.mark.parametrize("widths", [{2: 0, 3: 8}, {2: 8, 3: -4}, {2: 8, 3: 2**17}, [8, 8]])
def test_widths_are_checked_however_a_genotype_is_made(widths: object):
    with pytest.raises(GenotypeError, match=r"widths .* must be a mapping of level: width"):
        Genotype("one", (2,), (BlockSpec(3, B, (0,), True),), widths)  # type: ignore[arg-type]


def test_content_ignores_name_and_source_only():
    genotype = load("spinenet-49")
    assert replace(genotype, name="x", source="y").content() == genotype.content()
    assert sequential(genotype).content() != genotype.content()


def test_sequential_keeps_the_blocks_and_chains_them():
    genotype = load("spinenet-49")
    chain = sequential(genotype)
    assert [b.parents for b in chain.blocks] == [(i,) for i in range(1, 16)]
    unlinked = [replace(b, parents=()) for b in chain.blocks]
    assert unlinked == [replace(b, parents=()) for b in genotype.blocks]
    assert derive(genotype, ["sequential"]) == chain
    assert derive(genotype, []) == genotype


@given(genotype=genotypes())
@settings(max_examples=30, deadline=None)
def test_sequential_derivation_of_any_genotype_is_valid_and_idempotent(genotype: Genotype):
    once = sequential(genotype)
    assert sequential(once).content() == once.content()
    assert once.outputs == genotype.outputs


# Each error: the YAML, then what its message must name: the place, the value, the way out.
BAD = {
    "a parent that comes later": (
        changed("[2], output", "[5], output"),
        ["block 3", "parent 5", "blocks 0 to 2"],
    ),
    "a block that is its own parent": (
        changed("[2], output", "[3], output"),
        ["block 3", "parent 3", "blocks 0 to 2"],
    ),
    "a negative parent": (
        changed("[2], output", "[-1], output"),
        ["block 3", "parent -1", "blocks 0 to 2"],
    ),
    "a parent named twice": (changed("[0, 1]", "[1, 1]"), ["block 2", "[1, 1]", "distinct"]),
    "a block without parents": (changed("[0, 1]", "[]"), ["block 2", "[]", "one or more"]),
    "an unknown kind": (
        changed("residual", "inverted"),
        ["block 3", "'inverted'", "bottleneck, residual"],
    ),
    "a level without a width": (
        changed("[4, residual", "[9, residual"),
        ["block 3", "level 9", "[2, 3, 4, 5, 6, 7]"],
    ),
    "no output": (SMALL.replace(", output", ""), ["no block is an output", "mark one block"]),
    "two outputs of one level": (
        changed("[4, residual", "[3, residual"),
        ["two output blocks", "level 3", "at most one"],
    ),
    "an unknown key": (SMALL + "sources: x\n", ["'sources'", "name, stem, blocks, widths, source"]),
    "an unknown key that is a number": (SMALL + "7: x\n", ["7", "name, stem, blocks"]),
    "a missing key": (changed("stem: [2, 2]\n", ""), ["'stem'", "missing", "stem and blocks"]),
    "a row of the wrong length": (
        changed(", [2], output", ""),
        ["block 3", "[4, 'residual']", "[level, kind, [parents]]"],
    ),
    "a row that is a number": (
        changed("- [4, residual, [2], output]", "- 12"),
        ["block 3", "12", "[level, kind, [parents]]"],
    ),
    "a level that is a word": (
        changed("[4, residual", "[four, residual"),
        ["block 3", "'four'", "[level, kind, [parents]]"],
    ),
    "a parent that is a word": (
        changed("[2], output", "[stem], output"),
        ["block 3", "'stem'", "indices"],
    ),
    "another word for output": (
        changed("[2], output", "[2], out"),
        ["block 3", "'out'", "write output"],
    ),
    "a mobile block in a network of bottlenecks": (
        changed("residual", "mbconv"),
        ["block 3", "'mbconv'", "throughout"],
    ),
    "a mobile stem under bottlenecks": (
        SMALL.replace("[2, 2]", "[1, 2]") + "stem_kind: mbconv\nwidths: {1: 8, 2: 8, 3: 8, 4: 8}\n",
        ["block 2", "'bottleneck'", "throughout"],
    ),
    "a stem of another kind": (SMALL + "stem_kind: residual\n", ["stem_kind 'residual'", "mbconv"]),
    "merge_orphans that is a word": (
        SMALL + "merge_orphans: perhaps\n",
        ["merge_orphans 'perhaps'", "true or false"],
    ),
    "a stem that starts elsewhere": (changed("[2, 2]", "[3, 3]"), ["stem [3, 3]", "level 2"]),
    "a stem that jumps": (changed("[2, 2]", "[2, 4]"), ["stem [2, 4]", "0 or 1"]),
    "an empty stem": (changed("[2, 2]", "[]"), ["stem []", "start at level 2"]),
    "a stem that is a number": (changed("[2, 2]", "2"), ["stem", "2", "list"]),
    "a stem level that is a word": (changed("[2, 2]", "[two]"), ["stem", "'two'", "list"]),
    "blocks that are a mapping": (
        "stem: [2]\nblocks: {a: 1}\n",
        ["blocks", "{'a': 1}", "[level, kind, [parents]]"],
    ),
    "blocks left empty": ("stem: [2]\nblocks:\n", ["blocks", "None", "[level, kind, [parents]]"]),
    "widths that are a list": (SMALL + "widths: [64]\n", ["widths", "[64]", "level: width"]),
    "a width of nothing": (
        SMALL + "widths: {2: 64, 3: 0, 4: 8}\n",
        ["widths", "0", "level: width"],
    ),
    "a width that is a word": (SMALL + "widths: {2: wide}\n", ["widths", "'wide'", "level: width"]),
    "a list instead of a mapping": ("- 1\n- 2\n", ["mapping with stem and blocks", "list"]),
    "an empty file": ("", ["mapping with stem and blocks", "NoneType"]),
    "text that is not YAML": ("stem: [2, 2\nblocks: }", ["not valid YAML", "line"]),
}


# Each damage to a valid genotype: what to change in the last block, and what is then said of it.
DAMAGE = {
    "a parent that comes later": (
        lambda last, index: {"parents": (index,)},
        "does not come before",
    ),
    "a parent before the first": (lambda last, index: {"parents": (-1,)}, "does not come before"),
    "a parent named twice": (lambda last, index: {"parents": (0, 0)}, "one or more distinct"),
    "no parent": (lambda last, index: {"parents": ()}, "one or more distinct"),
    "an unknown kind": (lambda last, index: {"kind": "dense"}, "kind 'dense' is unknown"),
    "a kind of another family": (
        lambda last, index: {"kind": "residual" if last.kind == "mbconv" else "mbconv"},
        "mbconv throughout",
    ),
    "a level without a width": (lambda last, index: {"level": 9}, "level 9 has no width"),
}


@pytest.mark.parametrize("case", DAMAGE)
@given(genotype=genotypes())
@settings(max_examples=15, deadline=None)
def test_one_bad_block_spoils_any_genotype_and_is_named(case: str, genotype: Genotype):
    damage, reason = DAMAGE[case]
    *good, last = genotype.blocks
    index = len(genotype.nodes) - 1
    with pytest.raises(GenotypeError, match=reason) as caught:
        replace(genotype, blocks=(*good, replace(last, **damage(last, index))))
    assert f"block {index}:" in str(caught.value)


@given(genotype=genotypes(), data=st.data())
@settings(max_examples=15, deadline=None)
def test_outputs_of_any_genotype_are_some_and_of_distinct_levels(genotype: Genotype, data):
    plain = tuple(replace(b, is_output=False) for b in genotype.blocks)
    with pytest.raises(GenotypeError, match="no block is an output"):
        replace(genotype, blocks=plain)
    level = data.draw(st.sampled_from(list(genotype.outputs)))
    twin = BlockSpec(level, genotype.blocks[-1].kind, (0,), True)
    with pytest.raises(GenotypeError, match=f"two output blocks at level {level}"):
        replace(genotype, blocks=(*genotype.blocks, twin))


@pytest.mark.parametrize("case", BAD)
def test_a_bad_genotype_is_refused_by_place_value_and_way_out(case: str):
    text, named = BAD[case]
    with pytest.raises(GenotypeError) as caught:
        from_yaml(text, origin="my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: ")
    for part in named:
        assert part in message


def test_the_small_genotype_that_the_bad_ones_start_from_is_good():
    assert from_yaml(SMALL).outputs == {3: 2, 4: 3}


@pytest.mark.parametrize(
    ("written", "meant"), [("spinnet-49", "spinenet-49"), ("r0_sp53", "r0-sp53")]
)
def test_a_misspelt_shipped_name_suggests_the_nearest(written: str, meant: str):
    with pytest.raises(GenotypeError, match=re.escape(f"{written!r}; did you mean {meant!r}?")):
        load(written)


def test_a_name_like_no_other_gets_the_list_of_shipped_ones():
    with pytest.raises(GenotypeError) as caught:
        load("qqqqqqqq")
    assert all(name in str(caught.value) for name in shipped())
    assert "did you mean" not in str(caught.value)


def test_an_unknown_derivation_suggests_the_nearest():
    with pytest.raises(GenotypeError, match=r"'sequental'; did you mean 'sequential'\?"):
        derive(load("spinenet-49"), ["sequental"])


def test_a_file_is_found_beside_the_one_that_names_it(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(SMALL)
    assert load("small.yaml", relative_to=tmp_path) == from_yaml(SMALL)
    assert load(tmp_path / "small.yaml") == from_yaml(SMALL)
    with pytest.raises(GenotypeError, match=r"no genotype file .*absent\.yaml"):
        load("absent.yaml", relative_to=tmp_path)


def test_an_error_in_a_file_names_the_file(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(changed("residual", "dense"))
    with pytest.raises(GenotypeError, match=r"^mine\.yaml: block 3: kind 'dense'"):
        load(tmp_path / "mine.yaml")
