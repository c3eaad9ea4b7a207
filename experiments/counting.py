"""Counting many networks at once, at the paper's own size or a profile's, on every free core."""

from __future__ import annotations

import json
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
from experiments.recipe import Recipe, plain
from experiments.study import Cell, Study, Variant, variant_tree
from spinenet.config import ResNetConfig, ResNetFPNConfig

if TYPE_CHECKING:
    from spinenet.complexity import Complexity

MOST_PROCESSES = 8  # a model takes a tenth of a second; more would only be started and ended
FEW = 8  # networks that one process counts sooner than several start
EMBEDDED_CLASSES = {"digits": 11, "digits-classes": 10}  # outputs of a network on each

_Job = tuple[Recipe, int | None]


def full_size(study: Study, variant: Variant) -> Recipe:
    """The variant's recipe at the paper's own size."""
    return from_tree(variant_tree(study, variant, None), origin=study.id)


def count_full_size(
    models: Sequence[tuple[Study, Variant]], processes: int = 1
) -> list[Complexity]:
    """The counts of each model, in order, by so many processes."""
    jobs = [(full_size(study, variant), study.classes) for study, variant in models]
    return _count(jobs, processes)


def macs_by_run(cells: Sequence[Cell]) -> dict[str, float]:
    """Multiply-adds in 1e9 of each cell's network by run id, with the classes of its data where
    they are known and of the official head else. One network is counted once for all its runs.
    """
    jobs: dict[str, _Job] = {}
    network_of: dict[str, str] = {}
    known: dict[tuple[str, str], str] = {}  # a variant's network is that of all its seeds
    for cell in cells:
        place = cell.study, cell.variant
        if place not in known:
            known[place] = json.dumps([plain(cell.recipe.model), cell.recipe.data.transform.side])
            classes = EMBEDDED_CLASSES.get(cell.recipe.data.source.kind)
            jobs.setdefault(known[place], (cell.recipe, classes))
        network_of[cell.run_id] = known[place]
    processes = free_cores() if len(jobs) > FEW else 1
    counted = _count(list(jobs.values()), processes)
    macs_b = {network: found.macs_b for network, found in zip(jobs, counted, strict=True)}
    return {run: macs_b[network] for run, network in network_of.items()}


def longest_first(cells: Sequence[Cell]) -> list[Cell]:
    """Cells seed by seed, within a seed by falling work: no long run is left to end alone."""
    macs_b = macs_by_run(cells)
    work = {c.run_id: macs_b[c.run_id] * c.recipe.train.epochs for c in cells}
    return sorted(cells, key=lambda cell: (cell.seed, -work[cell.run_id]))


def _count(jobs: Sequence[_Job], processes: int) -> list[Complexity]:
    if processes == 1:
        return _count_all(jobs)
    import_module("experiments.networks")  # once, for all processes
    # One process counts all that need timm: to import it takes as long as to count the rest.
    with_timm = [_builds_with_timm(recipe) for recipe, _ in jobs]
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


def _count_all(jobs: Sequence[_Job]) -> list[Complexity]:
    return [counts(*job) for job in jobs]
