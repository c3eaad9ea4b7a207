"""One run by itself, and weights evaluated again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from experiments.allocator import keep_freed_memory
from experiments.briefing import briefing
from experiments.compose import Changes, apply, from_tree, load_recipe, parse_assignments
from experiments.errors import UserError
from experiments.faults import refuse_unwritable
from experiments.module import Files, TaskModule
from experiments.recipe import Recipe, open_data_of, run_id, to_tree
from experiments.runtime import Runtime
from experiments.scoring import Scores
from experiments.starting import start_changes
from experiments.store import Result, Store, write_atomically
from experiments.study import with_source
from experiments.study_file import load_profile, parse_source
from experiments.tasks import DataModule, datamodule, make_module
from experiments.training import train
from experiments.weights import Weights, read_weights


def compose_recipe(
    name: str,
    *,
    profile: str | None,
    data: str | None,
    changes: list[str],
    seed: int | None,
    weights: Path | None = None,
) -> Recipe:
    """A recipe with a profile, data, overrides and the weights to start from on top."""
    tree = load_recipe(name)
    chain = load_profile(profile).changes_for(tree) if profile is not None else ()
    overrides = Changes(parse_assignments(changes), "--set")
    tree = apply(tree, (*chain, overrides, *start_changes(weights)))
    recipe = from_tree(with_source(tree, parse_source(data)), origin=name)
    return recipe if seed is None else replace(recipe, seed=seed)


def train_one(
    recipe: Recipe, runs: Path, runtime: Runtime, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, Result]:
    """Train a recipe in the store, or return what it has already. `say` hears what there is
    to know before a training.
    """
    source = open_data_of(recipe)
    source.prepare()
    identity, store = run_id(recipe, source.fingerprint), Store(runs)
    folder = store.folder(identity, recipe.name)
    done = store.result(identity)
    if done is None:
        refuse_unwritable(runs)
        for line in briefing([recipe], {recipe.data.source: source}, runtime.weights):
            say(line)
        done = train(recipe, identity, folder, runtime)
    return folder, done


def evaluate_weights(
    weights: Path, data: str | None, output: Path | None, batch_size: int
) -> tuple[dict[str, float], Path]:
    """Metrics of a weights file on a validation split, which may be there without a training split;
    scores and what they rest on are written to a folder.
    """
    given = read_weights(weights)
    recipe, source = given.recipe, parse_source(data)
    if source is not None:
        recipe = replace(recipe, data=replace(recipe.data, source=source))
    recipe = replace(recipe, eval=replace(recipe.eval, batch_size=batch_size))
    keep_freed_memory()
    loaded = datamodule(recipe)
    loaded.prepare_data()
    loaded.setup("validate")
    _check_labels(given, loaded)
    found, files = _validate(make_module(given.network(), recipe, loaded), loaded)
    folder = output or given.path.parent / "eval"
    scores = {
        "metrics": found.metrics,
        "by_class": found.by_class,
        "pictures": len(loaded.val_set),
        "data": {"kind": recipe.data.source.kind, "fingerprint": loaded.val_fingerprint},
        "recipe": to_tree(recipe),
        "origin": given.origin,
    }
    for name, content in (files | {"scores.json": scores}).items():
        write_atomically(folder / name, json.dumps(content))
    return found.metrics, folder


@torch.no_grad()
def _validate(module: TaskModule, data: DataModule) -> tuple[Scores, Files]:
    """The module's final scores on the validation split, without a trainer around it."""
    module.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    for i, batch in enumerate(data.val_dataloader()):
        module.validation_step({k: v.to(module.device) for k, v in batch.items()}, i)
    return module.final()


def _check_labels(weights: Weights, data: DataModule) -> None:
    """Weights name their classes by number; on data with other numbers they would be scored as
    nonsense.
    """
    theirs = {number: label.name for number, label in weights.labels.items()}
    if theirs != data.class_names:
        different = sorted(set(theirs.items()) ^ set(data.class_names.items()))[:3]
        raise UserError(
            f"{weights.path}: trained for {len(theirs)} classes, the data has "
            f"{len(data.class_names)}; they differ in {different}; evaluate on data with the same "
            "categories"
        )
