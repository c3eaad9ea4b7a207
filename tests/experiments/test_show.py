"""`show` says what a network is and what each block costs, and draws it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.architecture import describe, find
from spinenet import genotype as genotypes
from spinenet import zoo

# Multiply-adds in 1e9 and parameters in 1e6 that the paper prints (tables 2 and 11).
PRINTED = {
    "spinenet-49": (85.4, 28.5),
    "spinenet-96": (265.4, 43.0),
    "r50-fpn": (96.8, 34.0),
}


@pytest.mark.parametrize(
    "name",
    [*PRINTED, "spinenet-49s", "mobile-spinenet-49", "r50-nas-fpn", "necks:r50-spp-fpn"],
)
def test_the_rows_add_up_to_the_backbone_and_the_whole_to_the_printed_counts(name: str):
    facts = describe(find(name))
    total = sum(row["macs_b"] for row in facts["rows"])
    assert total == pytest.approx(facts["backbone_macs_b"], rel=1e-9)
    assert facts["backbone_macs_b"] < facts.get("macs_b", float("inf"))
    if name in PRINTED:
        assert (facts["macs_b"], facts["params_m"]) == pytest.approx(PRINTED[name], rel=0.005)


def test_a_row_says_what_the_genotype_says(run):
    code, out, _ = run("show", "spinenet-49", "--json")
    facts = json.loads(out)
    rows = {row["block"]: row for row in facts["rows"]}
    assert code == 0
    assert (facts["name"], facts["side"], len(rows)) == ("spinenet-49", 640, 18)
    assert rows[14] | {"macs_b": 0} == {
        "block": 14,
        "level": 5,
        "kind": "bottleneck",
        "parents": [7, 12],
        "orphans": [11],
        "output": True,
        "channels": 1024,
        "macs_b": 0,
    }
    assert rows[3]["channels"] == 256


def test_every_model_of_the_zoo_is_shown():
    for name in zoo.MODELS:
        assert find(name).model is not None


def test_the_table_names_parents_orphans_and_outputs(run):
    code, out, _ = run("show", "spinenet-49")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert code == 0
    assert lines["14"][:8] == ["14", "5", "bottleneck", "7", "12", "+11", "P5", "1024"]
    assert "RetinaNet: 85.28 B multiply-adds, 28.54 M parameters" in out


def test_a_resnet_is_shown_by_its_stages(run):
    code, out, _ = run("show", "r101-fpn", "--json")
    rows = {row["stage"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert [rows[c]["blocks"] for c in ("C2", "C3", "C4", "C5")] == [3, 4, 23, 3]
    assert rows["C5"]["channels"] == 2048
    assert run("show", "r101-fpn")[0] == 0


def test_a_genotype_of_ones_own_is_shown_and_drawn(run, tmp_path: Path):
    mine = replace(genotypes.load("spinenet-49"), name="mine [v2]")
    file = tmp_path / "mine.yaml"
    file.write_text(mine.to_yaml())
    code, out, _ = run("show", file, "--json")
    assert code == 0
    assert json.loads(out)["name"] == "mine [v2]"
    assert run("show", file)[1].startswith("mine [v2] at 640 pixels")
    picture = tmp_path / "mine.svg"
    code, out, _ = run("show", file, "-o", picture)
    assert code == 0
    assert picture.read_text().startswith("<?xml")


def test_a_variant_of_a_study_is_shown_and_drawn(run, tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: ladder\nvariants:\n"
        "  chain:\n    from: spinenet-49\n    title: a chain\n"
        "    model.backbone.genotype: {base: spinenet-49, derive: [sequential]}\n"
        "    times: {model.backbone.width: 0.5}\n"
        "  fish: {unpublished: its connections were not released}\n"
    )
    code, out, _ = run("show", f"{file}:chain", "--json")
    facts = json.loads(out)
    rows = {row["block"]: row for row in facts["rows"]}
    assert code == 0
    assert (facts["name"], facts["side"]) == ("a chain", 640)
    assert (rows[14]["parents"], rows[14]["channels"]) == ([13], 512)
    picture = tmp_path / "chain.svg"
    assert run("show", f"{file}:chain", "-o", picture)[0] == 0
    assert "a chain" in picture.read_text()
    assert run("show", "ladder:spinenet-96", "--diff", f"{file}:chain")[0] == 0
    assert run("show", "ladder:r50-fpn", "--json")[0] == 0
    for variant, told in (("chian", "did you mean 'chain'"), ("fish", "its connections were not")):
        code, _, err = run("show", f"{file}:{variant}")
        assert code == 2
        assert err.startswith("error: mine.yaml: ")
        assert told in err


def test_a_difference_lists_only_the_blocks_that_differ(run, tmp_path: Path):
    mine = genotypes.load("spinenet-49")
    blocks = (*mine.blocks[:-1], replace(mine.blocks[-1], parents=(12, 13)))
    file = tmp_path / "mine.yaml"
    file.write_text(replace(mine, name="mine", blocks=blocks).to_yaml())
    code, out, _ = run("show", "spinenet-49", "--diff", file, "--json")
    assert code == 0
    found = json.loads(out)
    ((ours, theirs),) = found["blocks"]
    assert (found["models"], found["scaling"]) == (["spinenet-49", "mine"], {})
    assert (ours["block"], ours["parents"], theirs["parents"]) == (16, [12, 14], [12, 13])
    _, out, _ = run("show", "spinenet-49", "--diff", file)
    assert "12 14" in out
    assert "12 13" in out
    assert run("show", "spinenet-49", "--diff", file, "-o", tmp_path / "d.png")[0] == 0
    assert (tmp_path / "d.png").stat().st_size > 10_000


def test_models_of_one_graph_differ_in_their_scaling(run):
    _, out, _ = run("show", "spinenet-49", "--diff", "spinenet-190", "--json")
    found = json.loads(out)
    assert found["blocks"] == []
    assert found["scaling"] == {
        "width": [1.0, 1.3],
        "block_repeats": [1, 4],
        "resample_alpha": [0.5, 1.0],
        "endpoint_filters": [256, 512],
    }
    _, out, _ = run("show", "spinenet-49", "--diff", "spinenet-190")
    assert "block_repeats: 1 | 4" in out
    assert "every block and edge is the same" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spinenet-94",), "did you mean 'spinenet-"),
        (("SPINENET-49S",), "did you mean 'spinenet-49s'"),
        (("spinenet49s, As Printed",), "did you mean 'spinenet-49s-printed'"),
        (("classification:r50",), "'r50' is a ResNet without a neck"),
        (("laddr:r50-fpn",), "did you mean 'ladder'"),
        (("nowhere.yaml:a",), "nowhere.yaml: no such file"),
        (("nowhere.yaml",), "no genotype file nowhere.yaml"),
        (("r50-fpn", "-o", "x.svg"), "a ResNet has no genotype"),
        (("spinenet-49", "--diff", "r50-fpn"), "a ResNet has no genotype"),
        (("spinenet-49", "-o", "x.gif"), "use .svg or .png"),
        (("spinenet-49", "-o", "/nowhere/x.svg"), "/nowhere/x.svg"),
    ],
)
def test_a_mistake_is_one_line(run, arguments: tuple[str, ...], message: str):
    code, _, err = run("show", *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
