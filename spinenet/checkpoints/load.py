"""An official checkpoint into a network here, verified tensor by tensor.

The network's own tensors decide what a checkpoint must hold. What is missing, left over or of
another shape is listed, and nothing is loaded: half-right weights would still detect something.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from torch import Tensor, nn

from spinenet.backbone import SpineNet
from spinenet.checkpoints import tf1, tf2
from spinenet.checkpoints.bundle import Bundle
from spinenet.checkpoints.errors import CheckpointError
from spinenet.checkpoints.object_graph import AVERAGE, GRAPH
from spinenet.checkpoints.official import Variable, layers, variables
from spinenet.config import Flavor
from spinenet.resnet import ResNet, ResNetFPN

CODE_BASES: dict[Flavor, ModuleType] = {"tf1": tf1, "tf2": tf2}
LISTED = 3


class Loaded(NamedTuple):
    """What was loaded: whose, how many variables and values, how many variables as averages."""

    flavor: Flavor
    variables: int
    values: int
    averages: int


def code_base(bundle: Bundle) -> Flavor:
    """Which code wrote a checkpoint: the Model Garden's follow an object graph, tensorflow/tpu's do
    not.
    """
    return "tf2" if GRAPH in bundle else "tf1"


def official_variables(network: nn.Module, flavor: Flavor) -> list[Variable]:
    """Every tensor of a network with its name, shape and layout in a code base.

    Raises CheckpointError for a network that the code base has no counterpart of.
    """
    table = list(variables(layers(network.named_children(), CODE_BASES[flavor].RULES)))
    ours = {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}
    unnamed = sorted(ours - {v.ours for v in table})
    if unnamed:
        raise CheckpointError(
            f"no official {flavor} name is known for {_list(unnamed)} of this network"
        )
    return table


def load(bundle: Bundle, network: nn.Module, *, averaged: bool = True) -> Loaded:
    """Load an official checkpoint's weights into `network`, moving averages where it has them.

    Raises CheckpointError when the network's flavour is not the checkpoint's, or when the
    checkpoint is of another network, and names what differs. The activation and BatchNorm's epsilon
    are in no checkpoint: build the network with those that the checkpoint was trained with
    (`LayerConfig.activation`, `LayerConfig.bn_epsilon`), or it computes something else.
    """
    flavor = _flavor(network)
    if flavor != code_base(bundle):
        raise CheckpointError(
            f"{bundle.prefix}: written by {code_base(bundle)}'s code, whose padding and pooling "
            f"differ from {flavor}'s; build the network with flavor {code_base(bundle)}"
        )
    table = official_variables(network, flavor)
    stored = CODE_BASES[flavor].stored(bundle, averaged=averaged)
    _verify(bundle, table, stored)
    weights: dict[str, Tensor] = {
        v.ours: v.to_torch(bundle.tensor(stored[v.official])) for v in table
    }
    network.load_state_dict(network.state_dict() | weights)
    averages = sum(stored[v.official].endswith((tf1.AVERAGE, AVERAGE)) for v in table)
    return Loaded(flavor, len(table), sum(w.numel() for w in weights.values()), averages)


def _flavor(network: nn.Module) -> Flavor:
    """The code base whose padding and pooling a network was built with."""
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, SpineNet | ResNet | ResNetFPN):
        raise CheckpointError(
            f"{type(network).__name__} has no backbone of this package; give a detector or a "
            "classifier that is built on a SpineNet, ResNet or ResNetFPN"
        )
    return backbone.flavor


def _verify(bundle: Bundle, table: list[Variable], stored: dict[str, str]) -> None:
    wanted = {v.official for v in table}
    missing = [v.official for v in table if v.official not in stored]
    left_over = sorted(set(stored) - wanted)
    misshapen = [
        f"{v.official} is {list(bundle.shape(stored[v.official]))} instead of {list(v.shape)}"
        for v in table
        if v.official in stored and bundle.shape(stored[v.official]) != v.shape
    ]
    found = {
        "it lacks": missing,
        "this network has no": left_over,
        "of another shape": misshapen,
    }
    differences = [f"{what} {_list(names)}" for what, names in found.items() if names]
    if differences:
        raise CheckpointError(
            f"{bundle.prefix}: a checkpoint of another network than this one, which has "
            f"{len(table)} variables: {'; '.join(differences)}; choose the model it was made for"
        )


def _list(names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
