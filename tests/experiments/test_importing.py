"""spinenet import: official checkpoints become files that `spinenet eval` takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from safetensors import safe_open
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from experiments.cli import importing
from experiments.compose import from_tree
from experiments.errors import UserError
from experiments.importing import Said, describe
from experiments.recipe import Recipe
from experiments.single import evaluate_weights
from spinenet import zoo
from spinenet.checkpoints.load import official_variables
from spinenet.checkpoints.object_graph import GRAPH, VALUE
from spinenet.classification import ClassifierConfig, build_classifier
from spinenet.detection.mask_rcnn import MaskRCNNConfig
from spinenet.detection.retinanet import build_retinanet
from spinenet.layers import Flavor, LayerConfig
from tests.spinenet.checkpoints.bundle_writer import Value, object_graph, write_bundle

MODEL, SEEN = "mobile-spinenet-49xs", 3


@pytest.fixture
def run() -> Callable[..., Result]:
    app = typer.Typer()
    importing.register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def written(network: nn.Module, flavor: Flavor, folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint of a network as a code base writes it, and its weights by our keys."""
    state, layers, names = network.state_dict(), dict[str, int](), dict[str, str]()
    tensors: dict[str, Value] = {}
    for v in official_variables(network, flavor):
        key, value = v.official, state[v.ours]
        if flavor == "tf2":
            part, layer, inside = key.split("/", 2)
            if part == "backbone":
                number = layers.setdefault(layer, len(layers))
                key = f"{part}/layer_with_weights-{number}/{inside}"
            key += VALUE
            names[key] = f"{layer}/{inside}"
        tensors[key] = value.permute([v.axes.index(axis) for axis in range(value.dim())])
    if flavor == "tf2":
        tensors[GRAPH] = object_graph(names)
    return write_bundle(folder / "model-5", tensors), state


@pytest.fixture(scope="module", params=["tf1", "tf2"])
def official(request, tmp_path_factory) -> tuple[Flavor, Path, dict[str, Tensor]]:
    """A code base, a checkpoint of the smallest published detector, and the weights in there."""
    flavor: Flavor = request.param
    torch.manual_seed(1)
    config = zoo.model(MODEL).retinanet(LayerConfig(flavor=flavor))
    network = build_retinanet(config, num_classes=91)
    bias = network.get_parameter("head.classes.predict.pointwise.bias").data
    bias.view(9, 91)[:, SEEN] = 0.0  # a score of one half for one class, of 1 % for the others
    return flavor, *written(network, flavor, tmp_path_factory.mktemp(flavor))


def read(path: Path) -> tuple[Recipe, dict[str, dict], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    recipe = from_tree(json.loads(metadata["recipe"]), origin=path.name)
    return recipe, json.loads(metadata["labels"]), state


def test_the_file_has_the_weights_the_recipe_and_cocos_labels(official, run, tmp_path: Path):
    flavor, prefix, weights = official
    out = tmp_path / "new" / "w.safetensors"
    result = run(prefix, "--model", MODEL, "--out", out)
    assert result.exit_code == 0, result.exception
    recipe, labels, state = read(out)
    assert set(state) == set(weights)
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    expected = zoo.model(MODEL).retinanet(recipe.model.layers)
    decoded = replace(expected.postprocess, last_pixel=flavor == "tf1")
    assert recipe.model == replace(expected, postprocess=decoded)
    assert recipe.data.transform.side == 256
    constants = {"tf1": (1e-4, 0.003), "tf2": (1e-3, 0.01)}[flavor]
    layers = recipe.model.layers
    assert (layers.flavor, layers.activation) == (flavor, "swish")
    assert (layers.bn_epsilon, layers.bn_momentum) == constants
    assert len(labels) == 80
    assert labels["90"] == {"category": 90, "name": "toothbrush"}
    source = {"tf1": "tensorflow/tpu", "tf2": "the Model Garden"}[flavor]
    assert len(result.output.splitlines()) == 1
    assert f"from model-5 of {source}: " in result.output
    assert "activation swish (assumed, see --activation)" in result.output


def test_a_recipe_of_ones_own_names_the_network(run, tmp_path: Path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "model.backbone: {width: 0.125, endpoint_filters: 24}\n"
        "model.head: {convs: 1, filters: 24}\nmodel.layers.activation: swish\n"
    )
    described = describe(str(recipe), "tf1", "retinanet", Said())
    network = build_retinanet(described.model, num_classes=91)
    prefix, weights = written(network, "tf1", tmp_path)
    result = run(prefix, "--model", recipe, "--out", tmp_path / "w.safetensors")
    assert result.exit_code == 0, result.exception
    found, _, state = read(tmp_path / "w.safetensors")
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    assert found.model.layers == LayerConfig("tf1", "swish", bn_momentum=0.003, bn_epsilon=1e-4)
    with pytest.raises(UserError, match="give --task retinanet"):
        describe(str(recipe), "tf1", "mask-rcnn", Said())


def test_a_classifier_becomes_a_file_with_imagenets_labels(run, tmp_path: Path):
    config = ClassifierConfig(backbone=zoo.model(MODEL).backbone, background=True)
    prefix, weights = written(build_classifier(config, num_classes=1001), "tf1", tmp_path)
    result = run(prefix, "-m", MODEL, "--task", "classifier", "-o", tmp_path / "w.safetensors")
    assert result.exit_code == 0, result.exception
    recipe, labels, state = read(tmp_path / "w.safetensors")
    assert torch.equal(state["linear.weight"], weights["linear.weight"])
    assert recipe.model == replace(config, layers=recipe.model.layers)
    assert recipe.model.layers == LayerConfig("tf1", "swish", bn_momentum=0.1, bn_epsilon=1e-5)
    assert recipe.data.transform.kind == "crop"
    assert (len(labels), labels["1"]["name"], "0" in labels) == (1000, "n01440764", False)


@pytest.mark.parametrize(
    ("name", "heads", "activation", "side"),
    [
        ("spinenet-49s", (1, 128, 4, 128, 512, 3.0), "relu", 640),
        ("spinenet-143", (1, 256, 4, 256, 1024, 3.0), "relu", 1280),
        ("spinenet-190", (1, 384, 7, 384, 1024, 5.0), "swish", 1536),
    ],
)
def test_mask_rcnn_has_the_released_heads(name: str, heads: tuple, activation: str, side: int):
    recipe = describe(name, "tf1", "mask-rcnn", Said())
    model = recipe.model
    assert isinstance(model, MaskRCNNConfig)
    rpn, box = model.rpn, model.box
    found = (rpn.convs, rpn.filters, box.convs, box.filters, box.fc, rpn.anchors.size)
    assert found == heads
    assert (model.mask.convs, model.mask.filters) == (box.convs, box.filters)
    assert (model.layers.activation, model.layers.bn_epsilon) == (activation, 1e-3)
    assert recipe.data.transform.side == side


def test_what_no_checkpoint_tells_can_be_said(official, run, tmp_path: Path):
    _, prefix, _ = official
    constants = ("--bn-epsilon", "0.002", "--bn-momentum", "0.02", "--activation", "relu")
    result = run(prefix, "--model", MODEL, "--out", tmp_path / "w.safetensors", *constants)
    layers = read(tmp_path / "w.safetensors")[0].model.layers
    assert (layers.bn_epsilon, layers.bn_momentum, layers.activation) == (0.002, 0.02, "relu")
    assert "BatchNorm epsilon 0.002, activation relu\n" in result.output


def test_eval_takes_the_file_on_data_with_cocos_categories(
    official, run, coco_folder: Path, tmp_path: Path
):
    _, prefix, _ = official
    run(prefix, "--model", MODEL, "--out", tmp_path / "w.safetensors")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").symlink_to(coco_folder / "images")
    _, labels, _ = read(tmp_path / "w.safetensors")
    categories = [{"id": row["category"], "name": row["name"]} for row in labels.values()]
    for split in ("train", "val"):
        body = json.loads((coco_folder / f"annotations/instances_{split}.json").read_text())
        file = tmp_path / f"annotations/instances_{split}.json"
        file.write_text(json.dumps(body | {"categories": categories}))
    metrics, _ = evaluate_weights(tmp_path / "w.safetensors", f"coco:{tmp_path}", None, 3)
    assert "AP" in metrics
    found = json.loads((tmp_path / "eval" / "detections.json").read_text())
    assert {row["category_id"] for row in found} == {SEEN}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--model", "mobile-spinenet-49"), "another network than this one, .* choose the model"),
        (("--model", "spinenet49"), "import: no model 'spinenet49'; did you mean 'spinenet-49'"),
        (("--model", MODEL, "--bn-momentum", "3"), r"bn_momentum 3.0 must be in \(0, 1\]"),
        (("--model", MODEL, "--bn-epsilon", "-1"), r"bn_epsilon -1.0 must be above 0"),
        (("--model", MODEL, "--out", "."), r"^\.: is a folder; name a file, such as network"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    official, options: tuple[str, ...], problem: str, run, tmp_path: Path, monkeypatch
):
    _, prefix, _ = official
    monkeypatch.chdir(tmp_path)
    result = run(prefix, *options)
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match=problem):
        raise result.exception
    assert list(tmp_path.iterdir()) == []


def test_a_path_without_a_checkpoint_is_answered_with_the_ways_to_name_one(run, tmp_path: Path):
    result = run(tmp_path / "nothing", "--model", MODEL)
    assert "nothing.index is missing" in str(result.exception)
    result = run("--help")
    assert "Example: spinenet import" in " ".join(result.output.split())
