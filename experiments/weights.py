"""A weights file: the network's tensors with what is needed to use them, its recipe and the label
map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.compose import from_tree
from experiments.errors import UserError, first_problem
from experiments.networks import build
from experiments.recipe import Recipe, to_tree
from experiments.store import sync
from experiments.tasks import DataModule

WEIGHTS = "weights.safetensors"
MOST_LABELS = 100_000
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Label:
    """What a class number stands for: the data's category id, and its name."""

    category: int
    name: str


@dataclass(frozen=True)
class Weights:
    """A weights file's content; `labels` leaves out the background, where there is one. `origin` is
    empty for weights trained here.
    """

    path: Path
    recipe: Recipe
    labels: dict[int, Label]
    state: dict[str, Tensor]
    origin: dict[str, str]

    def network(self) -> nn.Module:
        """The network with these weights, in evaluation mode.

        Raises UserError when the weights are not those of the recipe's network.
        """
        model = build(self.recipe, num_classes=max(self.labels) + 1)
        try:
            model.load_state_dict(self.state)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise UserError(
                f"{self.path}: its tensors are not those of its recipe's network: {first}; "
                "write the file again from the run that it came from"
            ) from None
        return model.eval()


def labels_of(data: DataModule) -> dict[int, Label]:
    """The label map of a data set; where labels have no category ids they are their own."""
    categories = getattr(data, "label_to_category", {})
    return {n: Label(categories.get(n, n), name) for n, name in data.class_names.items()}


def refuse_folder(path: Path) -> None:
    """Raise UserError where a file is to be written and a folder is."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file, such as {path / 'network'}")


def write_weights(
    path: Path,
    network: nn.Module,
    recipe: Recipe,
    labels: dict[int, Label],
    origin: dict[str, str] | None = None,
) -> None:
    """Write a weights file, whole or not at all; `origin` says where foreign weights are from.
    Raises UserError where the path is a folder.
    """
    refuse_folder(path)
    described = {str(number): asdict(label) for number, label in labels.items()}
    metadata = {"recipe": json.dumps(to_tree(recipe)), "labels": json.dumps(described)}
    if origin:
        metadata["origin"] = json.dumps(origin)
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, partial, metadata)
    sync(partial)
    partial.replace(path)


def read_weights(run_or_file: Path) -> Weights:
    """Read a run's folder or a weights file. Raises UserError that names the file."""
    path = run_or_file / WEIGHTS if run_or_file.is_dir() else run_or_file
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a finished run's folder or its {WEIGHTS}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a weights file: {error}") from None
    missing = [key for key in ("recipe", "labels") if key not in metadata]
    if missing:
        raise UserError(
            f"{path}: has no {missing[0]} in its metadata; give a weights file written by a run"
        )
    recipe = from_tree(_read(path, metadata, "recipe", dict[str, Any]), origin=path.name)
    labels = _read(path, metadata, "labels", dict[int, Label])
    if not labels or not all(0 <= number < MOST_LABELS for number in labels):
        raise UserError(
            f"{path}: labels: {len(labels)} of them, which must be numbered from 0 to below "
            f"{MOST_LABELS:,}; give a weights file written by a run"
        )
    origin = _read(path, metadata, "origin", dict[str, str]) if "origin" in metadata else {}
    return Weights(path, recipe, labels, state, origin)


def _read(path: Path, metadata: Mapping[str, str], key: str, kind: type[Kind]) -> Kind:
    """An entry of the metadata, which is JSON of this kind."""
    try:
        return TypeAdapter(kind).validate_json(metadata[key])
    except ValidationError as error:
        inner, told = first_problem(error)
        where = f"{key}.{inner}" if inner else key
        raise UserError(
            f"{path}: {where} in its metadata: {told}; give a weights file written by a run"
        ) from None
