"""What a mistake in YAML is answered with: file, key, value, way out."""

from __future__ import annotations

import pytest

from datamodules.labels_csv import LabelsCsvConfig
from experiments.compose import (
    default_tree,
    from_tree,
    load_recipe,
    override,
    parse_assignments,
    read_yaml,
)
from experiments.errors import UserError
from experiments.study import with_source


def compose(changes: dict) -> object:
    return from_tree(override(default_tree(), changes, origin="my.yaml"), origin="my.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle.x": 1}, "my.yaml: modle.x: unknown key 'modle'; did you mean 'model'"),
        (
            {"model.backbone.widht": 1},
            "unknown key 'widht' in model.backbone; did you mean 'width'",
        ),
        (
            {"model.backbone": {"kind": "resnet"}},
            "unknown kind 'resnet'; did you mean 'resnet-fpn'",
        ),
        ({"model.backbone": {"genotyp": "x"}}, "unknown key 'genotyp'.*did you mean 'genotype'"),
        ({"train": {"kind": "long"}}, "train.kind: unknown key 'kind' in train"),
        ({"train.epochs": {"kind": 3}}, "train.epochs is a value, it has no keys inside"),
        ({"model": {"backbone": {"widht": 1}}}, "model.backbone.widht.*did you mean 'width'"),
        ({"model.backbone.kind": "resnet"}, "unknown kind 'resnet'; did you mean 'resnet-fpn'"),
        ({"model.backbone.genotype": "spinenet49"}, "no genotype 'spinenet49'; did you mean 'spin"),
        (
            {"model.backbone.genotype": {"base": "r0-sp53", "derive": ["seq"]}},
            "no derivation 'seq'",
        ),
        ({"model.backbone.genotype": 7}, r"cannot read 7; give a name, a \.yaml file"),
        ({"train.epochs": "many"}, "my.yaml: train.epochs: .*integer.*found 'many'"),
        ({"train.epochs": 0}, "my.yaml: train: epochs 0 must be at least 1"),
        ({"model": 3}, "my.yaml: model: 3 is not a mapping; set one of its keys: kind, backbone"),
        ({"model.backbone": 5}, "model.backbone: 5 is not a mapping; set one of its keys"),
        ({"train.epochs": 12}, "decay_before_end .*starts before the first of train.epochs 12"),
        ({"optim.lr_batch": 0}, "lr_batch 0 must be positive"),
        ({"model.head.filters": 0}, "filters 0 must be positive"),
        ({"seed": -1}, "seed -1 must not be negative"),
        ({"train.ema_decay": 2}, r"ema_decay 2.0 must be in \[0, 1\)"),
        ({"train.epochs.x": 3}, "train.epochs is a value, it has no keys inside"),
        ({"model.layers.flavor": "tf3"}, "model.layers.flavor: .*'tf1' or 'tf2', found 'tf3'"),
        ({"model.backbone.width": 0.001}, "width 0.001 .*leaves a layer without channels"),
    ],
)
def test_a_mistake_names_the_key_the_value_and_the_way_out(changes, message):
    with pytest.raises(UserError, match=message):
        compose(changes)


@pytest.mark.parametrize(
    ("dotted", "nested"),
    [
        (
            {"model.backbone": {"kind": "resnet-fpn"}, "model.backbone.depth": 101},
            {"model": {"backbone": {"depth": 101, "kind": "resnet-fpn"}}},
        ),
        ({"model.backbone": {"kind": "resnet-fpn"}}, {"model.backbone.kind": "resnet-fpn"}),
        ({"model": {"kind": "classifier"}}, {"model.kind": "classifier"}),
        (
            {"data.source": {"kind": "folder"}, "data.transform": {"kind": "crop"}},
            {"data": {"source": {"kind": "folder"}, "transform": {"kind": "crop"}}},
        ),
        (
            {"model.backbone.genotype": "r0-sp53", "model.backbone.width": 0.5},
            {"model": {"kind": "retinanet", "backbone": {"genotype": "r0-sp53", "width": 0.5}}},
        ),
    ],
)
def test_a_nested_change_is_the_same_as_dotted_ones(dotted, nested):
    start = override(default_tree(), {"model.backbone.genotype": "spinenet-49-mobile"}, origin="x")
    assert override(start, nested, origin="x") == override(start, dotted, origin="x")


def test_another_kind_keeps_nothing_of_the_old_one():
    tree = override(
        default_tree(), {"model": {"backbone": {"kind": "resnet-fpn"}}}, origin="my.yaml"
    )
    assert "genotype" not in tree["model"]["backbone"]
    crop = override(default_tree(), {"data": {"transform": {"kind": "crop"}}}, origin="my.yaml")
    assert crop["data"]["transform"]["side"] == 224


def test_yaml_that_does_not_parse_names_file_and_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1,\nb: 2\n")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML at line 3: expected"):
        read_yaml(path)


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(UserError, match="no recipe 'retinanett'; did you mean 'retinanet'"):
        load_recipe("retinanett")


def test_a_recipe_file_may_build_on_another_beside_it(tmp_path):
    (tmp_path / "base.yaml").write_text("train.epochs: 70\n")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nmodel.backbone.width: 0.5\n")
    recipe = from_tree(load_recipe(str(tmp_path / "mine.yaml")), origin="mine.yaml")
    assert (recipe.train.epochs, recipe.model.backbone.width) == (70, 0.5)


def test_a_recipe_that_is_its_own_base_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(UserError, match=r"a\.yaml: it is its own base; name another recipe"):
        load_recipe(str(tmp_path / "a.yaml"))


def test_what_is_said_of_data_stands_when_their_folder_is_given():
    said = {"data.source.kind": "csv", "data.source.class_column": "label"}
    tree = override(default_tree(), said, origin="x")
    given = with_source(tree, LabelsCsvConfig(root="mine"))["data"]["source"]
    assert (given["root"], given["class_column"]) == ("mine", "label")
    other = with_source(default_tree(), LabelsCsvConfig(root="mine"))["data"]["source"]
    assert (other["kind"], other["class_column"]) == ("csv", "class")


def test_assignments_are_read_as_yaml():
    given = parse_assignments(["train.epochs=3", "data.transform.scale_jitter=[1, 1]"])
    assert given == {"train.epochs": 3, "data.transform.scale_jitter": [1, 1]}
    with pytest.raises(UserError, match="expected KEY=VALUE"):
        parse_assignments(["train.epochs"])


def test_genotype_files_are_found_beside_the_file_that_names_them(tmp_path):
    text = "name: mine\nstem: [2, 2]\nblocks:\n  - [3, bottleneck, [0, 1], output]\n"
    (tmp_path / "mine.yaml").write_text(text)
    tree = override(
        default_tree(), {"model.backbone.genotype": "mine.yaml"}, origin="x", folder=tmp_path
    )
    assert from_tree(tree, origin="x").model.backbone.genotype.name == "mine"
