"""Two runs or two studies side by side."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.comparing import compare, compare_runs
from experiments.errors import UserError
from experiments.recipe import to_tree
from experiments.single import compose_recipe
from experiments.statistics import estimate
from experiments.store import Store
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study
from tests.experiments.helpers import of_ladder
from tests.experiments.test_tables import finish

RESULTS = Path(__file__).parents[2] / "results"
BOTH = [RESULTS / "embedded", RESULTS / "embedded-long"]
EMBEDDED = BOTH[:1]


@pytest.fixture(scope="module")
def two_runs() -> list[str]:
    found = {r.name: r.run_id for r in Store(EMBEDDED[0]).results()}
    return [found["r50-fpn-digits-s0"], found["spinenet-49-digits-s0"]]


def test_two_runs_line_by_line(two_runs):
    store = Store(EMBEDDED[0])
    a, b = (store.result(i) for i in two_runs)
    found = compare(*two_runs, EMBEDDED)
    line = next(line for line in found.lines if line.name == "AP")
    assert line.gain.mean == pytest.approx(b.metrics["AP"] - a.metrics["AP"])
    assert line.gain.half is None
    assert any(key.startswith("model.backbone") for key in found.recipe)


@pytest.mark.parametrize("digits", [4, 12])
def test_a_run_is_named_by_folder_or_by_its_name_or_by_the_beginning_of_its_id(two_runs, digits):
    folder = Store(EMBEDDED[0]).find(two_runs[0])
    expected = compare(*two_runs, EMBEDDED)
    for name in (str(folder), folder.name, two_runs[0][:digits]):
        assert compare(name, two_runs[1], EMBEDDED) == expected


def test_a_beginning_of_several_ids_names_none_of_them():
    with pytest.raises(UserError, match=r"9: begins the ids of \d+ runs: .*r0-sp53-keep-long"):
        compare("9", "ladder", EMBEDDED)


def test_a_run_that_is_not_there_is_told_the_nearest():
    with pytest.raises(UserError, match="did you mean 'spinenet-49-digits-s0-797ba2132d9c'"):
        compare("spinenet-49-digits-s0-797ba2132d9d", "ladder", EMBEDDED)
    with pytest.raises(UserError, match="did you mean 'spinenet-49-digits-s0-797ba2132d9c'"):
        compare("797ba2132d9d", "ladder", EMBEDDED)


def test_a_study_against_itself_gains_nothing_and_has_no_noise():
    found = compare("ladder", "ladder@embedded", EMBEDDED)
    assert len(found.lines) == 5
    assert {(line.gain.mean, line.gain.half, line.gain.count) for line in found.lines} == {
        (0.0, None, load_profile("embedded").seeds)
    }
    assert (found.recipe, found.only_a, found.only_b) == ({}, (), ())


def test_studies_of_two_folders_pair_by_seed():
    found = compare("ladder@embedded", "ladder@embedded-long", BOTH)
    short, long = (
        {r.seed: r.metrics["AP"] for r in results if r.name.startswith("r50-fpn")}
        for results in (of_ladder(Store(folder)) for folder in BOTH)
    )
    line = next(line for line in found.lines if line.name == "r50-fpn AP")
    assert line.gain == estimate([long[seed] - short[seed] for seed in sorted(short)])
    assert found.recipe["train.epochs"] == (2, 4)
    assert not any(": " in key for key in found.recipe)


def test_variants_that_one_side_lacks_are_listed_and_the_recipes_not_called_the_same(run, tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(
        "base: ladder\nvariants:\n  wide: {from: spinenet-49, model.backbone.width: 0.3}\n"
    )
    runs = tmp_path / "runs"
    shutil.copytree(EMBEDDED[0], runs)
    study = load_study(str(file))
    selection = Selection(profile=load_profile("embedded"), seeds=1, only=("wide",))
    finish(Store(runs), cells(study, selection)[0])
    found = compare("ladder", str(file), [runs])
    assert (found.only_a, found.only_b, found.recipe) == ((), ("wide",), {})
    _, out, _ = run("compare", "ladder", file, "--runs", runs)
    assert "Only B has runs of: wide" in out
    assert "recipes are the same" not in out


def test_a_gain_over_fewer_seeds_than_its_sides_says_so(run, tmp_path):
    for folder in Store(EMBEDDED[0]).folders():
        if not folder.name.startswith("spinenet-49-digits-s2"):
            shutil.copytree(folder, tmp_path / folder.name)
    long = RESULTS / "embedded-long"
    where = ("--runs", tmp_path, "--runs", long)
    _, out, _ = run("compare", "ladder", "ladder@embedded-long", *where)
    assert "B - A is over the seeds that both have." in out
    _, out, _ = run("compare", "ladder", "ladder", *where)
    assert "seeds that both have" not in out
    assert "The recipes are the same." in out


def test_a_field_that_an_older_result_lacks_is_at_its_default(two_runs):
    newer = Store(EMBEDDED[0]).result(two_runs[1])
    train = {key: value for key, value in newer.recipe["train"].items() if key != "accumulate"}
    older = replace(newer, recipe={**newer.recipe, "train": train})
    named = {**train, "accumulate": 1}
    assert compare_runs(replace(newer, recipe={**newer.recipe, "train": named}), older).recipe == {}


def test_networks_that_differ_are_named_not_written_out(two_runs):
    found = {r.name: r for r in Store(EMBEDDED[0]).results()}
    other, newer = found["r0-sp53-digits-s0"], found["spinenet-49-digits-s0"]
    assert compare_runs(other, newer).recipe["model.backbone.genotype"] == (
        "r0-sp53",
        "spinenet-49",
    )
    assert not any(".genotype." in key for key in compare_runs(other, newer).recipe)


def test_a_network_edited_under_its_name_is_told(two_runs):
    result = Store(EMBEDDED[0]).result(two_runs[1])
    edited = copy.deepcopy(result.recipe)
    edited["model"]["backbone"]["genotype"]["blocks"][0][1] = "residual"
    (shown,) = compare_runs(result, replace(result, recipe=edited)).recipe.items()
    name = "spinenet-49"
    assert shown == ("model.backbone.genotype", (name, f"{name}, of the same name, edited"))


def test_classes_are_called_by_what_was_measured_of_them(two_runs):
    detector = Store(EMBEDDED[0]).result(two_runs[0])
    recipe = to_tree(compose_recipe("classifier", profile="smoke", data=None, changes=[], seed=0))
    classifier = replace(detector, recipe=recipe)
    assert "AP of 3" in {line.name for line in compare_runs(detector, detector).lines}
    named = {line.name for line in compare_runs(classifier, classifier).lines}
    assert "top1 of 3" in named
    assert "AP of 3" not in named


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("lader", "ladder", "did you mean 'ladder'"),
        ("ladder@smoke", "ladder", "no finished run"),
        ("ladder@embeded", "ladder", "did you mean 'embedded'"),
        ("ladder@gpu", "ladder", "compare two of its runs by their folders"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, told):
    with pytest.raises(UserError, match=told):
        compare(a, b, EMBEDDED)


def test_a_run_is_not_compared_with_a_study(two_runs):
    with pytest.raises(UserError, match="two of a kind"):
        compare(two_runs[0], "ladder", EMBEDDED)


def test_the_command_prints_json(run, two_runs):
    _, out, _ = run("compare", *two_runs, "--runs", str(RESULTS / "embedded"), "--json")
    found = json.loads(out)
    assert {line["name"] for line in found["lines"]} >= {"AP", "MACs M"}
