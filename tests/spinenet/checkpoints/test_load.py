import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from official_names import tf1_keys, tf2_keys
from official_weights import HERE, load, picture, variables
from torch import Tensor, nn

from spinenet.backbone import SpineNetConfig
from spinenet.checkpoints import tf1
from spinenet.checkpoints.bundle import Bundle
from spinenet.checkpoints.errors import CheckpointError
from spinenet.checkpoints.load import Loaded, code_base
from spinenet.checkpoints.load import load as load_checkpoint
from spinenet.checkpoints.object_graph import GRAPH, VALUE
from spinenet.detection.head import HeadConfig
from spinenet.detection.retinanet import RetinaNet, RetinaNetConfig, build_retinanet
from spinenet.layers import Flavor, LayerConfig
from tests.spinenet.checkpoints.bundle_writer import Value, object_graph, write_bundle

CLASS_STRIDE = 11  # the references keep every n-th class channel
LAYERS = json.loads((HERE / "layers_tf2.json").read_text())["tiny_tf2"]
Rename = Callable[[str], str]


def tiny(flavor: Flavor, *, repeats: int | None = None) -> RetinaNet:
    """The tiny detector of a flavour's reference outputs, freshly initialised, in eval mode."""
    repeats = repeats or {"tf1": 1, "tf2": 2}[flavor]
    epsilon = {"tf1": 1e-4, "tf2": 1e-3}[flavor]
    config = RetinaNetConfig(
        backbone=SpineNetConfig(width=0.125, block_repeats=repeats, endpoint_filters=24),
        layers=LayerConfig(flavor=flavor, activation="swish", bn_epsilon=epsilon),
        head=HeadConfig(convs=4, filters=24),
    )
    return build_retinanet(config, num_classes=91).eval()


def official(value: Tensor) -> Tensor:
    """A kernel as TensorFlow lays it out."""
    return value.permute(2, 3, 1, 0) if value.dim() == 4 else value


def tensorflow_tpu() -> dict[str, Value]:
    """The tiny detector's checkpoint as Estimator saves it, with slots and the step."""
    tensors: dict[str, Value] = {v.name: official(v.value) for v in variables("tiny_tf1")}
    slots = {f"{name}/Momentum": torch.ones_like(v) for name, v in tensors.items()}  # type: ignore[arg-type]
    return tensors | slots | {"global_step": torch.tensor(7)}


def model_garden(
    root: str = "", renamed: Rename = lambda name: name, averages: float | None = None
) -> dict[str, Value]:
    """The tiny detector's checkpoint as the Model Garden's trainer saves it."""
    tensors: dict[str, Value] = {}
    names = {}
    for variable in variables("tiny_tf2"):
        layer, _, leaf = variable.name.rpartition(".")
        path, keras = LAYERS[layer]
        key = f"{root}{path}/{leaf}"
        tensors[f"{key}{VALUE}"] = value = official(variable.value)
        names[f"{key}{VALUE}"] = renamed(f"{keras}/{leaf}")
        tensors[f"{key}/.OPTIMIZER_SLOT/optimizer/momentum{VALUE}"] = torch.ones(2)
        if averages is not None:
            slot = f"{key}/.OPTIMIZER_SLOT/optimizer/average{VALUE}"
            tensors[slot] = torch.full_like(value, averages)
    step = {f"global_step{VALUE}": torch.tensor(1), f"save_counter{VALUE}": torch.tensor(1)}
    return tensors | step | {GRAPH: object_graph(names)}


def loaded(tensors: dict[str, Value], network: RetinaNet, folder: Path, **options: bool) -> Loaded:
    bundle = Bundle(write_bundle(folder / "m", tensors, shards=2))
    return load_checkpoint(bundle, network, **options)


def worst_error(network: RetinaNet, table: str, prefix: str) -> float:
    """Largest difference of the class logits to the official code's, relative to their largest."""
    with torch.no_grad():
        logits, _ = network(picture(2, 128, 128))
    reference, first, errors = load(f"retinanet_{table}"), 0, []
    for level, side in ((3, 16), (4, 8), (5, 4), (6, 2), (7, 1)):
        rows = logits[:, first : first + 9 * side**2].reshape(2, side, side, -1).numpy()
        first += 9 * side**2
        theirs = reference.get(f"{prefix}cls_l{level}")
        if theirs is not None:
            error = np.abs(rows[..., ::CLASS_STRIDE] - theirs).max()
            errors.append(error / np.abs(theirs).max())
    assert len(errors) >= 2
    return max(errors)


def test_an_imported_tensorflow_tpu_checkpoint_gives_its_codes_outputs(tmp_path: Path):
    network, tensors = tiny("tf1"), tensorflow_tpu()
    assert loaded(tensors, network, tmp_path) == Loaded("tf1", 830, 599_903, averages=0)
    assert worst_error(network, "tiny_tf1", "swish_128x128_") <= 1e-5


@pytest.mark.parametrize("root", ["", "model/"])
def test_an_imported_model_garden_checkpoint_gives_its_codes_outputs(root: str, tmp_path: Path):
    network = tiny("tf2")
    assert loaded(model_garden(root), network, tmp_path) == Loaded("tf2", 1065, 833_375, 0)
    assert worst_error(network, "tiny_tf2", "") <= 1e-5


def later_process(name: str) -> str:
    """Keras's name when other layers were made before, and norms are synchronised."""
    layer, *rest = name.split("/")
    kind, _, number = layer.rpartition("_")
    if not number.isdigit():
        kind, number = layer, "0"
    kind = kind.replace("batch_normalization", "sync_batch_normalization")
    return "/".join((f"{kind}_{int(number) + 90}", *rest))


def test_names_count_from_any_number_and_norms_may_be_synchronised(tmp_path: Path):
    assert later_process("conv2d/kernel") == "conv2d_90/kernel"
    network = tiny("tf2")
    loaded(model_garden(renamed=later_process), network, tmp_path)
    expected = tf2_keys(v.name for v in variables("tiny_tf2"))
    state = network.state_dict()
    assert all(torch.equal(state[expected[v.name]], v.value) for v in variables("tiny_tf2"))


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
def test_moving_averages_are_preferred_and_can_be_declined(flavor: Flavor, tmp_path: Path):
    if flavor == "tf1":
        tensors = tensorflow_tpu()
        kernels = [name for name in tensors if name.endswith("/kernel")]
        tensors |= {n + tf1.AVERAGE: torch.full_like(tensors[n], 0.5) for n in kernels}  # type: ignore[arg-type]
        count = len(kernels)
    else:
        tensors, count = model_garden(averages=0.5), 1065
    network = tiny(flavor)
    assert loaded(tensors, network, tmp_path).averages == count
    assert (network.head.classes.predict.weight == 0.5).all()  # type: ignore[union-attr]
    assert loaded(tensors, network, tmp_path, averaged=False).averages == 0
    keys = tf1_keys if flavor == "tf1" else tf2_keys
    official_name = (
        "retinanet/class_net/class-predict/kernel" if flavor == "tf1" else "head.scores.kernel"
    )
    values = {v.name: v.value for v in variables(f"tiny_{flavor}")}
    (key,) = keys([official_name]).values()
    assert torch.equal(network.state_dict()[key], values[official_name])


def test_the_code_base_is_told_by_the_keys(tmp_path: Path):
    one = write_bundle(tmp_path / "a", {"spinenet/conv2d/kernel": torch.ones(1)})
    other = write_bundle(tmp_path / "b", {GRAPH: object_graph({})})
    assert [code_base(Bundle(prefix)) for prefix in (one, other)] == ["tf1", "tf2"]


def test_a_network_of_another_flavor_is_refused_though_every_tensor_fits(tmp_path: Path):
    with pytest.raises(CheckpointError, match="build the network with flavor tf1"):
        loaded(tensorflow_tpu(), tiny("tf2", repeats=1), tmp_path)
    with pytest.raises(CheckpointError, match="build the network with flavor tf2"):
        loaded(model_garden(), tiny("tf1", repeats=2), tmp_path)


def test_a_network_without_a_backbone_of_this_package_is_refused(tmp_path: Path):
    bundle = Bundle(write_bundle(tmp_path / "m", {"conv2d/kernel": torch.ones(1)}))
    with pytest.raises(CheckpointError, match="Linear has no backbone of this package"):
        load_checkpoint(bundle, nn.Linear(1, 1))


def test_a_checkpoint_of_another_network_is_refused_with_what_differs(tmp_path: Path):
    with pytest.raises(CheckpointError) as refused:
        loaded(tensorflow_tpu(), tiny("tf1", repeats=2), tmp_path)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/m: a checkpoint of another network")
    assert "it lacks spinenet/conv2d_13/kernel" in message
    assert "... (235 in all)" in message
    assert "spinenet/conv2d_8/kernel is [1, 1, 64, 24] instead of [1, 1, 32, 8]" in message


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"spinenet/conv2d/kernel": None}, "it lacks spinenet/conv2d/kernel; choose"),
        ({"fpn/l3/kernel": torch.ones(1, 1, 2, 2)}, "this network has no fpn/l3/kernel; choose"),
        (
            {"spinenet/conv2d/kernel": torch.ones(7, 7, 64, 3)},
            r"is \[7, 7, 64, 3\] instead of \[7,",
        ),
    ],
)
def test_one_wrong_variable_is_enough_and_leaves_the_network_as_it_was(
    change: dict[str, Tensor | None], problem: str, tmp_path: Path
):
    network = tiny("tf1")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    tensors = {k: v for k, v in (tensorflow_tpu() | change).items() if v is not None}
    with pytest.raises(CheckpointError, match=problem):
        loaded(tensors, network, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_layer_without_a_name_in_the_object_graph_is_refused(tmp_path: Path):
    tensors = model_garden(renamed=lambda name: "" if name.startswith("conv2d_3/") else name)
    with pytest.raises(
        CheckpointError, match=r"no name for backbone/layer_with_weights-\d+/kernel"
    ):
        loaded(tensors, tiny("tf2"), tmp_path)
    with pytest.raises(CheckpointError, match="damaged object graph"):
        loaded(tensors | {GRAPH: b"\x0f"}, tiny("tf2"), tmp_path)
