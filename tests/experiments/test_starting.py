"""A run starts from given weights: all of them but the class head, of the same architecture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.errors import UserError
from experiments.networks import build, build_network
from experiments.recipe import Recipe, run_id
from experiments.single import compose_recipe
from experiments.starting import digest, plan_start, start_changes, start_network
from experiments.weights import Label, read_weights, write_weights
from spinenet.complexity import without_values
from tests.experiments.conftest import TINY

NAMES = {1: "red", 2: "orange"}
OTHERS = {1: "square", 2: "round", 3: "flat"}


def recipe_for(weights: Path, *changes: str, name: str = "retinanet") -> Recipe:
    return compose_recipe(
        name, profile="smoke", data=None, changes=[*TINY, *changes], seed=5, weights=weights
    )


def test_all_but_the_class_head_is_taken_for_other_classes(weights_file):
    recipe, given = recipe_for(weights_file), read_weights(weights_file).state
    network, fresh = (build(recipe, len(OTHERS) + 1) for _ in range(2))
    lines = start_network(network, recipe, weights_file, OTHERS)
    head = {"head.classes.predict.weight", "head.classes.predict.bias"}
    for key, value in network.state_dict().items():
        expected = fresh.state_dict()[key] if key in head else given[key]
        assert torch.equal(value, expected), key
    assert f"{len(given) - 2} tensors taken" in lines[0]
    assert "2 made anew for other classes: head.classes.predict" in lines[0]


def test_the_same_classes_keep_their_head(weights_file):
    recipe = recipe_for(weights_file)
    network = build(recipe, 3)
    lines = start_network(network, recipe, weights_file, NAMES)
    for key, value in read_weights(weights_file).state.items():
        assert torch.equal(network.state_dict()[key], value)
    assert "anew" not in lines[0]


def test_as_many_classes_of_other_names_are_other_classes(weights_file):
    start = plan_start(read_weights(weights_file), recipe_for(weights_file), {1: "a", 2: "b"})
    assert len(start.left) == 2


@pytest.mark.parametrize("task", ["mask-rcnn", "classifier"])
def test_the_class_heads_of_the_other_tasks_are_found(task, weights_file, tmp_path):
    recipe = compose_recipe(task, profile="smoke", data=None, changes=[], seed=0)
    file = tmp_path / "weights.safetensors"
    labels = {n: Label(n, name) for n, name in NAMES.items()}
    write_weights(file, build_network(recipe.model, 3), recipe, labels)
    start = plan_start(read_weights(file), recipe, OTHERS)
    by_class = {"mask-rcnn": {"box_head", "mask_head"}, "classifier": {"linear"}}[task]
    assert {key.split(".")[0] for key in start.left} == by_class
    with without_values():
        every = build_network(recipe.model, 3).state_dict()
    assert {*start.taken, *start.left} == set(every)


def test_another_architecture_is_refused_with_keys_and_settings(weights_file):
    wider = recipe_for(weights_file, "model.backbone.width=0.125")
    with pytest.raises(UserError) as caught:
        plan_start(read_weights(weights_file), wider, NAMES)
    message = str(caught.value)
    assert "weights.safetensors: the weights of another architecture" in message
    assert "in the file and [" in message
    assert "model.backbone.width 0.0625 in the file, 0.125 here" in message
    deeper = recipe_for(weights_file, "model.head.convs=2")
    with pytest.raises(UserError, match=r"it has no head\.\S+"):
        plan_start(read_weights(weights_file), deeper, NAMES)


def test_equal_shapes_with_other_settings_are_said(weights_file):
    other = recipe_for(weights_file, "model.layers.activation=swish", "model.loss.box_weight=10")
    start = plan_start(read_weights(weights_file), other, NAMES)
    assert start.settings == ("model.layers.activation relu in the file, swish here",)
    assert start.lines()[1].startswith("the file's network has other settings: model.layers")


def test_the_id_follows_from_the_content_and_not_from_the_path(weights_file, tmp_path):
    given = read_weights(weights_file)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights_file.read_bytes())
    assert start_changes(moved)[0].values == start_changes(weights_file)[0].values
    changed = replace(given, state={k: v + 1 for k, v in given.state.items()})
    renamed = replace(given, labels={1: Label(3, "red"), 2: Label(7, "blue")})
    assert len({digest(given), digest(changed), digest(renamed)}) == 3
    plain = compose_recipe("retinanet", profile="smoke", data=None, changes=TINY, seed=5)
    assert plain.train.start == ""
    assert run_id(recipe_for(weights_file), "data") != run_id(plain, "data")


def test_a_recipe_without_its_file_or_with_another_is_refused(weights_file, tmp_path):
    recipe = recipe_for(weights_file)
    with pytest.raises(UserError, match=r"train\.start .* give their file with --weights"):
        start_network(build(recipe, 3), recipe, None, NAMES)
    given = read_weights(weights_file)
    other = tmp_path / "other.safetensors"
    write_weights(other, build(replace(recipe, seed=9), 3), given.recipe, given.labels)
    with pytest.raises(UserError, match=r"other\.safetensors: not the weights .* starts from"):
        start_network(build(recipe, 3), recipe, other, NAMES)
    with pytest.raises(UserError, match=r"start 'abc' is no digest"):
        compose_recipe("retinanet", profile=None, data=None, changes=["train.start=abc"], seed=0)


def test_train_starts_from_a_file_and_says_so(run, weights_file, coco_folder, tmp_path):
    settings = [word for change in [*TINY, "optim.lr=1e-12"] for word in ("--set", change)]
    where = ("--data", f"coco:{coco_folder}", "--runs", tmp_path, "--wandb", "disabled")
    arguments = ("train", "retinanet", "-p", "smoke", *settings, *where, "--json")
    code, out, err = run(*arguments, "--weights", weights_file)
    assert code == 0
    assert "data: " in err
    assert f"weights: {weights_file}: " in err
    folder = Path(json.loads(out[out.index("{") :])["folder"])
    assert "tensors taken" in (folder / "train.log").read_text()
    trained, given = read_weights(folder), read_weights(weights_file)
    assert trained.recipe.train.start == digest(given)
    key = "head.classes.predict.weight"  # far from what a seed gives, and hardly moved
    torch.testing.assert_close(trained.state[key], given.state[key], rtol=1e-3, atol=1e-3)
    code, out, _ = run("eval", folder, "--json")  # needs no file to start from
    assert code == 0


def test_reproduce_refuses_foreign_weights_before_anything_runs(run, weights_file, tmp_path):
    arguments = ("reproduce", "ladder", "-p", "smoke", "--only", "r50-fpn", "--runs", tmp_path)
    code, _, err = run(*arguments, "--weights", weights_file)
    assert code == 2
    assert "the weights of another architecture than r50-fpn-digits-s0's" in err
    assert not list(tmp_path.iterdir())


def test_reproduce_starts_from_a_file_and_its_table_asks_for_it(
    run, coco_folder, weights_file, tmp_path
):
    settings = [word for change in TINY for word in ("--set", change)]
    shared = ("ladder", "-p", "smoke", "--only", "spinenet-49", *settings)
    shared = (*shared, "--data", f"coco:{coco_folder}", "--weights", weights_file)
    where = ("--runs", tmp_path)
    code, _, err = run("reproduce", *shared, *where, "--wandb", "disabled")
    assert code == 0
    assert "classes: 2 by training objects" in err
    assert "tensors taken" in err
    _, out, _ = run("status", *shared, *where, "--json")
    assert [row["state"] for row in json.loads(out)] == ["complete"]
