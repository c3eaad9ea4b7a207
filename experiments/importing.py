"""From an official TensorFlow checkpoint to a weights file of this project.

A checkpoint holds tensors only. What else decides the outputs is set here and written into the
file: padding and pooling of the code base that wrote it, its BatchNorm constants, the activation.
The file is what a run writes, so that `eval` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from timm.data import ImageNetInfo
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from datamodules import TransformConfig
from experiments.compose import from_tree, load_recipe
from experiments.errors import UserError
from experiments.networks import build
from experiments.recipe import ModelConfig, Recipe
from experiments.weights import Label, refuse_folder, write_weights
from spinenet import zoo
from spinenet.checkpoints.bundle import Bundle
from spinenet.checkpoints.errors import CheckpointError
from spinenet.checkpoints.load import Loaded, code_base, load
from spinenet.config import Activation, Flavor, LayerConfig, SpineNetConfig
from spinenet.yaml_text import is_yaml

Task = Literal["retinanet", "mask-rcnn", "classifier"]  # recipes by name

SOURCES = {"tf1": "tensorflow/tpu", "tf2": "the Model Garden"}
LARGEST = "spinenet-190"

# BatchNorm's epsilon and momentum (the new batch's share) that a code base trains a task with:
# tensorflow/tpu's configurations of RetinaNet leave them at its defaults, 1e-4 and 0.997.
NORMS: dict[tuple[Flavor, Task], tuple[float, float]] = {
    ("tf1", "retinanet"): (1e-4, 0.003),
    ("tf1", "mask-rcnn"): (1e-3, 0.01),
    ("tf1", "classifier"): (1e-5, 0.1),
    ("tf2", "retinanet"): (1e-3, 0.01),
    ("tf2", "mask-rcnn"): (1e-3, 0.01),
    ("tf2", "classifier"): (1e-5, 0.1),
}


@dataclass(frozen=True)
class Said:
    """What a user says of the network that no checkpoint tells; None leaves it to the code base."""

    activation: Activation | None = None
    bn_epsilon: float | None = None
    bn_momentum: float | None = None


def import_weights(
    checkpoint: Path, path: Path, name: str, task: Task, said: Said, *, averaged: bool
) -> str:
    """Write the checkpoint's weights of the model `name` to `path`; a line that says what was done.

    Raises UserError when the checkpoint cannot be read or is of another network, or where `path` is
    a folder.
    """
    refuse_folder(path)
    labels = _labels(task)
    try:
        bundle = Bundle(checkpoint)
        recipe = describe(name, code_base(bundle), task, said)
        network = build(recipe, max(labels) + 1)
        loaded = load(bundle, network, averaged=averaged)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = {"model": Path(name).name, "task": task, "code_base": SOURCES[loaded.flavor]}
    write_weights(path, network, recipe, labels, origin)
    what = f"{path}: {name}, {task}, from {bundle.prefix.name} of {SOURCES[loaded.flavor]}"
    return f"{what}: {_summary(loaded, recipe.model.layers, said)}"


def _summary(loaded: Loaded, layers: LayerConfig, said: Said) -> str:
    averages = f", {loaded.averages} of them moving averages" if loaded.averages else ""
    assumed = "" if said.activation else " (assumed, see --activation)"
    return (
        f"{loaded.variables} variables{averages}, {loaded.values / 1e6:.2f} M values; "
        f"BatchNorm epsilon {layers.bn_epsilon:g}, activation {layers.activation}{assumed}"
    )


def describe(name: str, flavor: Flavor, task: Task, said: Said) -> Recipe:
    """The task's own recipe with the model `name` in it, or the recipe in the file `name`, in the
    conventions of a code base but for what the user said.
    """
    try:
        if is_yaml(name):
            return _of_file(name, flavor, task, said)
        model = zoo.model(name)
        usual = LayerConfig(activation=_usual_activation(name, model, task))
        layers = _conventions(usual, flavor, task, said)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"import: {error}") from None
    recipe = from_tree(load_recipe(task), origin=task)
    recipe = replace(recipe, model=_config(model, task, layers))
    if task == "classifier":
        return recipe
    side = (task == "mask-rcnn" and model.two_stage.side) or model.side
    return replace(recipe, data=replace(recipe.data, transform=TransformConfig(side=side)))


def _of_file(name: str, flavor: Flavor, task: Task, said: Said) -> Recipe:
    """A recipe of the user's own, for a network that the zoo does not have."""
    recipe = from_tree(load_recipe(name), origin=name)
    if recipe.model.kind != task:
        raise UserError(
            f"{name}: model.kind: {recipe.model.kind} is not the task; give --task "
            f"{recipe.model.kind}, or a recipe of a {task}"
        )
    layers = _conventions(recipe.model.layers, flavor, task, said)
    return replace(recipe, model=replace(recipe.model, layers=layers))


def _conventions(stated: LayerConfig, flavor: Flavor, task: Task, said: Said) -> LayerConfig:
    epsilon, momentum = NORMS[flavor, task]
    return replace(
        stated,
        flavor=flavor,
        activation=said.activation or stated.activation,
        bn_epsilon=epsilon if said.bn_epsilon is None else said.bn_epsilon,
        bn_momentum=momentum if said.bn_momentum is None else said.bn_momentum,
    )


def _usual_activation(name: str, model: zoo.Model, task: Task) -> Activation:
    """The published networks' with stochastic depth, but for those that have no such row."""
    plain = task == "mask-rcnn" and name != LARGEST
    return "swish" if isinstance(model.backbone, SpineNetConfig) and not plain else "relu"


def _config(model: zoo.Model, task: Task, layers: LayerConfig) -> ModelConfig:
    """The network of a task with a model's backbone and the heads that were released with it."""
    if task == "retinanet":
        config = model.retinanet(layers)
        last_pixel = layers.flavor == "tf1"  # the published AP is that of this decoding
        return replace(config, postprocess=replace(config.postprocess, last_pixel=last_pixel))
    return model.mask_rcnn(layers) if task == "mask-rcnn" else model.classifier(layers)


def _labels(task: Task) -> dict[int, Label]:
    """The official labels, which are the data's own ids: COCO's categories, or ImageNet's synsets
    from 1 in their order.
    """
    if task == "classifier":
        names = dict(enumerate(ImageNetInfo("imagenet-1k").label_names(), start=1))
    else:
        listed = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
        names = {i: n for i, n in enumerate(listed) if n not in ("__background__", "N/A")}
    return {number: Label(number, name) for number, name in names.items()}
