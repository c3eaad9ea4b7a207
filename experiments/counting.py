"""Counting many networks at once: each at the paper's own size, on every core that is free."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from itertools import chain, compress
from multiprocessing import get_context
from typing import TYPE_CHECKING

from experiments.compose import from_tree
from experiments.grid import counts
from experiments.provenance import usable_cores
from experiments.recipe import Recipe
from experiments.study import Study, Variant, variant_tree
from spinenet.config import ResNetConfig, ResNetFPNConfig

if TYPE_CHECKING:
    from spinenet.complexity import Complexity

MOST_PROCESSES = 8  # a model takes a tenth of a second; more would only be started and ended


def full_size(study: Study, variant: Variant) -> Recipe:
    """The variant's recipe at the paper's own size."""
    return from_tree(variant_tree(study, variant, None), origin=study.id)


def count_full_size(
    models: Sequence[tuple[Study, Variant]], processes: int = 1
) -> list[Complexity]:
    """The counts of each model, in order, by so many processes."""
    recipes = [full_size(study, variant) for study, variant in models]
    jobs = [(recipe, study.classes) for (study, _), recipe in zip(models, recipes, strict=True)]
    if processes == 1:
        return _count_all(jobs)
    import_module("experiments.networks")  # once, for all processes
    # One process counts all that need timm: to import it takes as long as to count the rest.
    with_timm = [_builds_with_timm(recipe) for recipe in recipes]
    groups = [list(compress(jobs, with_timm))]
    groups += [[job] for job, needed in zip(jobs, with_timm, strict=True) if not needed]
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        slow, *others = pool.map(_count_all, groups)
    first, rest = iter(slow), chain.from_iterable(others)
    return [next(first if needed else rest) for needed in with_timm]


def free_cores() -> int:
    """Processes that counting may take: one per core where forking is safe, else one."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return 1  # a fork has only the thread that made it, and macOS's libraries do not allow it
    return min(usable_cores(), MOST_PROCESSES)


def _builds_with_timm(recipe: Recipe) -> bool:
    layers = recipe.model.layers
    drops = layers.stochastic_depth > 0 or layers.drop_block > 0
    return drops or isinstance(recipe.model.backbone, ResNetConfig | ResNetFPNConfig)


def _count_all(jobs: Sequence[tuple[Recipe, int | None]]) -> list[Complexity]:
    return [counts(*job) for job in jobs]
