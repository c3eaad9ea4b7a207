"""From a recipe to its network; without Lightning, which what only counts need not wait for."""

from __future__ import annotations

import torch
from torch import nn

from experiments.recipe import ModelConfig, Recipe
from spinenet.classification import Classifier, build_classifier
from spinenet.config import ClassifierConfig
from spinenet.detection.config import MaskRCNNConfig
from spinenet.detection.mask_rcnn import MaskRCNN, build_mask_rcnn
from spinenet.detection.retinanet import RetinaNet, build_retinanet

Network = RetinaNet | MaskRCNN | Classifier


def build_network(config: ModelConfig, num_classes: int) -> Network:
    """The network that a configuration describes, on the device in force."""
    if isinstance(config, ClassifierConfig):
        return build_classifier(config, num_classes)
    if isinstance(config, MaskRCNNConfig):
        return build_mask_rcnn(config, num_classes)
    return build_retinanet(config, num_classes)


def compile_network(network: nn.Module, backend: str = "inductor", mode: str | None = None) -> None:
    """Compile what has one shape at every step. Losses and suppression stay as they are. Names of
    weights do not change.
    """
    part_of_one_shape(network).compile(dynamic=False, backend=backend, mode=mode)


def part_of_one_shape(network: nn.Module) -> nn.Module:
    """What has one shape at every step: of a two-stage detector its backbone, of the others the
    whole network.
    """
    return network.backbone if isinstance(network, MaskRCNN) else network


def build(recipe: Recipe, num_classes: int) -> nn.Module:
    """The network of a recipe, initialised from its seed."""
    torch.manual_seed(recipe.seed)
    return build_network(recipe.model, num_classes).to(memory_format=torch.channels_last)
