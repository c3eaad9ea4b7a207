import json
import lzma
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from official_construction import (
    SCALINGS,
    Builder,
    fpn,
    head,
    mask_rcnn,
    nas_fpn,
    tf1_variables,
    tf2_variables,
)
from official_names import tf1_keys, tf2_keys
from official_weights import HERE
from strategies import genotypes
from torch import nn

from spinenet import zoo
from spinenet.backbone import SpineNet, SpineNetConfig
from spinenet.checkpoints import tf2
from spinenet.checkpoints.bundle import Bundle
from spinenet.checkpoints.errors import CheckpointError
from spinenet.checkpoints.load import official_variables
from spinenet.checkpoints.object_graph import GRAPH, VALUE
from spinenet.classification import ClassifierConfig, build_classifier
from spinenet.config import ResNetConfig
from spinenet.detection.head import HeadConfig
from spinenet.detection.mask_rcnn import MaskRCNNConfig, build_mask_rcnn
from spinenet.detection.retinanet import RetinaNet, RetinaNetConfig, build_retinanet
from spinenet.detection.rpn import RPNConfig
from spinenet.genotype import Genotype
from spinenet.layers import Flavor, LayerConfig
from tests.spinenet.checkpoints.bundle_writer import object_graph, write_bundle

FLAVORS = ("tf1", "tf2")
LAYERS = json.loads((HERE / "layers_tf2.json").read_text())
Shape = tuple[int, ...]


def detector(model: str, flavor: Flavor) -> RetinaNet:
    """A model of the zoo, or one of the tiny ones that the references were made with."""
    layers = LayerConfig(flavor=flavor)
    if model.startswith("tiny"):
        repeats = SCALINGS[model].repeats
        backbone = SpineNetConfig(width=0.125, block_repeats=repeats, endpoint_filters=24)
        config = RetinaNetConfig(backbone=backbone, layers=layers, head=HeadConfig(4, 24))
    else:
        config = zoo.model(model).retinanet(layers)
    with torch.device("meta"):
        return build_retinanet(config, num_classes=91)


def named(network: nn.Module, flavor: Flavor) -> dict[str, Shape]:
    table = official_variables(network, flavor)
    names = {v.official: v.shape for v in table}
    assert len(names) == len(table)  # no name twice
    return names


def constructed(model: str, flavor: Flavor) -> dict[str, Shape]:
    scaling = SCALINGS[model]
    made, ends = Builder().backbone(scaling), head(scaling)
    return tf1_variables(made, ends) if flavor == "tf1" else tf2_variables(made, {"head": ends})


def reported(table: str) -> list[tuple[str, Shape]]:
    """Names and shapes as the official code reported them, in its order."""
    rows = json.loads((HERE / f"variables_{table}.json").read_text())["rows"]
    return [(name, tuple(shape)) for name, shape, _ in rows]


def model_garden(folder: Path) -> Bundle:
    """Index and object graph of the tiny network's checkpoint as TensorFlow wrote them, slots and
    all; the values are left out.
    """
    path = folder / "ckpt-1.index"
    path.write_bytes(lzma.decompress((HERE / "checkpoint_tiny_tf2.index.xz").read_bytes()))
    with (folder / "ckpt-1.data-00000-of-00001").open("wb") as data:
        data.seek(Bundle(path).entries[GRAPH].offset)
        data.write(lzma.decompress((HERE / "checkpoint_tiny_tf2.graph.xz").read_bytes()))
    return Bundle(path)


def written(table: str, folder: Path) -> Bundle:
    """A backbone under the keys and names that TensorFlow reported of it."""
    tensors: dict[str, torch.Tensor | bytes] = {}
    names = {}
    for role, shape in reported(table):
        layer, _, leaf = role.rpartition(".")
        path, keras = LAYERS[table][layer]
        key = f"{path}/{leaf}{VALUE}"
        tensors[key], names[key] = torch.zeros(shape), f"{keras}/{leaf}"
    tensors[GRAPH] = object_graph(names)
    return Bundle(write_bundle(folder / "ckpt-1", tensors))


def test_tensorflow_tpus_own_names_are_ours_and_belong_to_the_same_tensors():
    official = dict(reported("tiny_tf1"))
    network = detector("tiny_tf1", "tf1")
    assert named(network, "tf1") == official == constructed("tiny_tf1", "tf1")
    assert {v.official: v.ours for v in official_variables(network, "tf1")} == tf1_keys(official)


@pytest.mark.parametrize(
    ("table", "model"),
    [
        ("tiny_tf2", "tiny_tf2"),
        ("49s", "spinenet-49s"),
        ("mobile_49xs", "mobile-spinenet-49xs"),
    ],
)
def test_the_model_gardens_own_names_are_ours_and_belong_to_the_same_tensors(
    table: str, model: str, tmp_path: Path
):
    bundle = model_garden(tmp_path) if table == "tiny_tf2" else written(table, tmp_path)
    stored = tf2.stored(bundle, averaged=True)
    assert len(stored) == len(reported(table))
    found = {name: bundle.shape(key) for name, key in stored.items()}
    assert found.items() <= constructed(model, "tf2").items()
    ours = {v.official: v.ours for v in official_variables(detector(model, "tf2"), "tf2")}
    role = {path: layer for layer, (path, _) in LAYERS[table].items()}
    for name, key in stored.items():
        layer, _, leaf = key.removesuffix(VALUE).rpartition("/")
        (expected,) = tf2_keys([f"{role[layer]}.{leaf}"]).values()
        assert ours[name] == expected


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("model", SCALINGS)
def test_every_spinenet_has_the_names_and_shapes_that_official_construction_gives(
    model: str, flavor: Flavor
):
    assert named(detector(model, flavor), flavor) == constructed(model, flavor)


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_every_resnet_fpn_has_the_names_and_shapes_that_official_construction_gives(
    depth: int, flavor: Flavor
):
    found = named(detector(f"r{depth}-fpn", flavor), flavor)
    made, neck, ends = Builder().resnet(depth), fpn(256), head(SCALINGS["spinenet-49"])
    if flavor == "tf1":
        assert found == tf1_variables(made, neck + ends)
    else:
        assert found == tf2_variables(made, {"decoder": neck, "head": ends})


def test_nas_fpn_has_the_names_and_shapes_that_official_construction_gives():
    made, neck, ends = Builder().resnet(50), nas_fpn(256, 7), head(SCALINGS["spinenet-49"])
    assert named(detector("r50-nas-fpn", "tf1"), "tf1") == tf1_variables(made, neck + ends)
    with pytest.raises(CheckpointError, match=r"backbone\.fpn: no official names .* NASFPN"):
        named(detector("r50-nas-fpn", "tf2"), "tf2")


@pytest.mark.parametrize("backbone", [SpineNetConfig(), ResNetConfig(depth=50)])
def test_classifiers_have_the_names_and_shapes_that_official_construction_gives(
    backbone: SpineNetConfig | ResNetConfig,
):
    with torch.device("meta"):
        network = build_classifier(ClassifierConfig(backbone=backbone), num_classes=1001)
    is_resnet = isinstance(backbone, ResNetConfig)
    made = Builder().resnet(50) if is_resnet else Builder().backbone(SCALINGS["spinenet-49"])
    dense = {"kernel": (2048 if is_resnet else 256, 1001), "bias": (1001,)}
    last = {f"classification_head/dense/{leaf}": shape for leaf, shape in dense.items()}
    assert named(network, "tf1") == tf1_variables(made, []) | last


@pytest.mark.parametrize("flavor", FLAVORS)
def test_mask_rcnn_has_the_names_and_shapes_that_official_construction_gives(flavor: Flavor):
    with torch.device("meta"):
        network = build_mask_rcnn(MaskRCNNConfig(layers=LayerConfig(flavor=flavor)), 91)
    made, heads = Builder().backbone(SCALINGS["spinenet-49"]), mask_rcnn(256, 256, 1024)
    if flavor == "tf1":
        every = [layer for part in heads.values() for layer in part]
        assert named(network, flavor) == tf1_variables(made, every)
    else:
        assert named(network, flavor) == tf2_variables(made, heads)


def test_a_second_convolution_of_proposals_has_no_name_in_tensorflow_tpu():
    config = MaskRCNNConfig(rpn=RPNConfig(convs=2))
    with torch.device("meta"):
        network = build_mask_rcnn(config, 91)
    with pytest.raises(CheckpointError, match=r"no official tf1 name is known for rpn\.convs\.1"):
        official_variables(network, "tf1")


@pytest.mark.parametrize("flavor", FLAVORS)
@given(genotype=genotypes())
@settings(max_examples=15, deadline=None)
def test_every_tensor_of_any_genotype_has_one_official_name(flavor: Flavor, genotype: Genotype):
    config = SpineNetConfig(genotype=genotype, width=0.25, endpoint_filters=8, block_repeats=2)
    with torch.device("meta"):
        network = nn.ModuleDict({"backbone": SpineNet(config, LayerConfig(flavor=flavor))})
    table = official_variables(network, flavor)
    tensors = {k for k in network.state_dict() if not k.endswith("num_batches_tracked")}
    assert {v.ours for v in table} == tensors
    assert len({v.official for v in table}) == len(tensors)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_what_official_code_does_not_have_is_refused(flavor: Flavor):
    network: nn.Module = nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(3, 4, 1))})
    with pytest.raises(CheckpointError, match="backbone: no official names are known for Seq"):
        official_variables(network, flavor)
    config = SpineNetConfig(width=0.0625, endpoint_filters=8, fusion="concat")
    network = nn.ModuleDict({"backbone": SpineNet(config, LayerConfig(flavor=flavor))})
    with pytest.raises(CheckpointError, match=r"no official .* name is known for backbone\.fuse\."):
        official_variables(network, flavor)
