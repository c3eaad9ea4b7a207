"""Starting from given weights: an imported checkpoint, or a run's own file.

All tensors are taken but those of the class head, which the recipe's seed initialises anew unless
the file's classes are the data's. Which tensors depend on the number of classes is not listed but
found: they are those whose shape changes with it. A file of another architecture is refused, with
the tensors that differ.

The recipe holds a digest of the file's content (`train.start`), so that a run's id follows from
what it started from and not from where that lay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datamodules import ClassSource, Source
from experiments.compose import Changes, difference
from experiments.errors import UserError
from experiments.networks import build_network
from experiments.recipe import Recipe, plain
from experiments.weights import Weights, read_weights
from spinenet.complexity import without_values
from spinenet.config import ClassifierConfig

# What a network is trained or read out with, not what it is.
READ_OUT = ("loss", "match", "postprocess")
SHOWN = 3


@dataclass(frozen=True)
class Start:
    """A file's weights beside a recipe's network: which tensors it takes, which are made anew, and
    the settings in which the two recipes' models differ although their shapes do not.
    """

    weights: Weights
    taken: tuple[str, ...]
    left: tuple[str, ...]
    settings: tuple[str, ...]

    def lines(self) -> list[str]:
        """What is taken and what is not, for people."""
        values = sum(self.weights.state[key].numel() for key in self.taken)
        said = f"weights: {self.weights.path}: {len(self.taken)} tensors taken"
        lines = [f"{said}, {values / 1e6:.2f} M values"]
        if self.left:
            anew = f"{', '.join(self.left[:SHOWN])}{', …' if self.left[SHOWN:] else ''}"
            lines[0] += f"; {len(self.left)} made anew for other classes: {anew}"
        if self.settings:
            lines.append(f"the file's network has other settings: {'; '.join(self.settings)}")
        return lines

    def load_into(self, network: nn.Module) -> None:
        """Put what is taken into the recipe's network."""
        network.load_state_dict({key: self.weights.state[key] for key in self.taken}, strict=False)


def digest(weights: Weights) -> str:
    """SHA-256 of every tensor's name, type, shape and values, and of the label map."""
    found = hashlib.sha256()
    for key, value in sorted(weights.state.items()):
        found.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    labels = sorted((number, label.name) for number, label in weights.labels.items())
    found.update(repr(labels).encode())
    return found.hexdigest()


def start_changes(file: Path | None) -> tuple[Changes, ...]:
    """What `--weights FILE` changes in a recipe; nothing without a file."""
    if file is None:
        return ()
    return (Changes({"train.start": digest(read_weights(file))}, "--weights"),)


def start_network(
    network: nn.Module, recipe: Recipe, file: Path | None, names: Mapping[int, str]
) -> list[str]:
    """Put the weights that `recipe` starts from into its `network`; what was taken. `names` are the
    data's classes by label.
    """
    if file is None:
        raise UserError(
            f"train.start {recipe.train.start[:12]}…: the recipe starts from given weights; give "
            "their file with --weights"
        )
    weights = read_weights(file)
    if digest(weights) != recipe.train.start:
        raise UserError(
            f"{weights.path}: not the weights that the recipe starts from: their digest is "
            f"{digest(weights)[:12]}…, train.start is {recipe.train.start[:12]}…; give that file, "
            "or leave train.start out"
        )
    start = plan_start(weights, recipe, names)
    start.load_into(network)
    return start.lines()


def plan_start(weights: Weights, recipe: Recipe, names: Mapping[int, str]) -> Start:
    """What of a file goes into the network of `recipe` on data with these classes, without making
    it. Raises UserError for another architecture.
    """
    mine, other = (_shapes(recipe, max(names) + 1 + more) for more in (0, 1))
    by_class = {key for key in mine if mine[key] != other[key]}
    theirs = {key: tuple(value.shape) for key, value in weights.state.items()}
    if {n: label.name for n, label in weights.labels.items()} == dict(names):
        by_class = set()
    _refuse_another(weights, recipe, mine, theirs, by_class)
    return Start(
        weights,
        taken=tuple(key for key in mine if key not in by_class),
        left=tuple(key for key in mine if key in by_class),
        settings=tuple(_settings(weights, recipe)),
    )


def class_names(source: Source | ClassSource, recipe: Recipe) -> dict[int, str]:
    """The classes of a data set by label, as a recipe's network counts them."""
    if isinstance(source, ClassSource):
        model = recipe.model
        offset = int(isinstance(model, ClassifierConfig) and model.background)
        return dict(enumerate(source.index("train").class_names, start=offset))
    return source.index("val").class_names


def _shapes(recipe: Recipe, num_classes: int) -> dict[str, tuple[int, ...]]:
    with without_values():
        network = build_network(recipe.model, num_classes)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def _refuse_another(
    weights: Weights,
    recipe: Recipe,
    mine: Mapping[str, tuple[int, ...]],
    theirs: Mapping[str, tuple[int, ...]],
    by_class: Iterable[str],
) -> None:
    free = set(by_class)
    problems = [f"it has no {key}" for key in mine if key not in theirs]
    problems += [f"{key} is not in the network" for key in theirs if key not in mine]
    problems += [
        f"{key} is {list(theirs[key])} in the file and {list(shape)} in the network"
        for key, shape in mine.items()
        if key in theirs and key not in free and theirs[key] != shape
    ]
    if problems:
        settings = list(_settings(weights, recipe))
        why = f"; the settings differ: {'; '.join(settings[:SHOWN])}" if settings else ""
        more = f" and {len(problems) - SHOWN} more" if problems[SHOWN:] else ""
        raise UserError(
            f"{weights.path}: the weights of another architecture than {recipe.name}'s: "
            f"{', '.join(problems[:SHOWN])}{more}{why}; give weights of this network, or train the "
            "file's own"
        )


def _settings(weights: Weights, recipe: Recipe) -> Iterable[str]:
    """Where the two models differ, but for how they are trained and read out."""
    mine, theirs = (_model_tree(r) for r in (recipe, weights.recipe))
    for key, (in_file, here) in difference(mine, theirs).items():
        if key.startswith("model.backbone.genotype"):
            if key.endswith(".name"):
                yield f"model.backbone.genotype {in_file} in the file, {here} here"
        else:
            yield f"{key} {in_file} in the file, {here} here"


def _model_tree(recipe: Recipe) -> dict[str, Any]:
    tree = plain(recipe.model)
    return {"model": {key: value for key, value in tree.items() if key not in READ_OUT}}
