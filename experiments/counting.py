"""Multiply-adds and parameters of recipes' networks: one, or many on every core that is free.

A network is counted once. What was counted is kept in the user's cache under the model's
description and everything that could change the counts: this package's own sources and the
libraries that the networks are made with.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib import import_module
from importlib.metadata import version
from itertools import chain, compress
from multiprocessing import get_context
from pathlib import Path

from datamodules.drawn import cache_folder
from experiments.compose import from_tree
from experiments.provenance import usable_cores
from experiments.recipe import Recipe, plain
from experiments.store import write_atomically
from experiments.study import Cell, Study, Variant, variant_tree
from spinenet import config
from spinenet.config import ResNetConfig, ResNetFPNConfig
from spinenet.counts import Complexity

# Outputs of the official heads, which the printed counts include: COCO's ids with the background,
# ImageNet's classes with one.
OFFICIAL_CLASSES = {"retinanet": 91, "mask-rcnn": 91, "classifier": 1001}
LIBRARIES = ("torch", "timm", "torchvision")
Job = tuple[Recipe, int | None]  # and the outputs of its head
MOST_PROCESSES = 8  # a model takes a tenth of a second; more would only be started and ended
FEW = 8  # networks that one process counts sooner than several start
EMBEDDED_CLASSES = {"digits": 11, "digits-classes": 10}  # outputs of a network on each


def counts(recipe: Recipe, num_classes: int | None = None) -> Complexity:
    """Multiply-adds and parameters of a recipe's network, by default with the official head; built
    without memory, or known from before.
    """
    path = _path(recipe, num_classes)
    known = _read(path)
    if known is not None:
        return known
    from experiments.networks import build_network
    from spinenet.complexity import complexity, without_values

    with without_values():
        model = build_network(recipe.model, _outputs(recipe, num_classes))
    counted = complexity(model, recipe.data.transform.side)
    with suppress(OSError):  # a cache that cannot be written costs a second, no result
        write_atomically(path, _text(counted))
    return counted


def _outputs(recipe: Recipe, num_classes: int | None) -> int:
    return OFFICIAL_CLASSES[recipe.model.kind] if num_classes is None else num_classes


def _path(recipe: Recipe, num_classes: int | None) -> Path:
    """Where the counts are kept: a name that follows from all that decides them."""
    facts = {
        "model": plain(recipe.model),
        "side": recipe.data.transform.side,
        "outputs": _outputs(recipe, num_classes),
        "made by": _makers(),
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "counts" / f"{name[:32]}.json"


@cache
def _makers() -> str:
    """A hash of the sources of the networks, and of the versions of the libraries below them."""
    digest = hashlib.sha256(repr([version(name) for name in LIBRARIES]).encode())
    builder = Path(__file__).with_name("networks.py")
    for path in sorted([builder, *Path(config.__file__).parent.rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> Complexity | None:
    """What is kept, or None where nothing is or it is damaged, be it by a digit."""
    try:
        text = path.read_text()
        kept = json.loads(text)
        found = Complexity(kept["macs_b"], kept["params_m"], kept["macs_b_by_module"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if text == _text(found) else None


def _text(counted: Complexity) -> str:
    """Counts with their checksum."""
    body = asdict(counted)
    return json.dumps(body | {"sha256": hashlib.sha256(json.dumps(body).encode()).hexdigest()})


def full_size(study: Study, variant: Variant) -> Recipe:
    """The variant's recipe at the paper's own size."""
    return from_tree(variant_tree(study, variant, None), origin=study.origin)


def count_full_size(
    models: Sequence[tuple[Study, Variant]],
    processes: int = 1,
    on_new: Callable[[int], None] = lambda count: None,
) -> list[Complexity]:
    """The counts of each model, in order, by so many processes. `on_new` hears how many networks
    have to be counted.
    """
    jobs = [(full_size(study, variant), study.classes) for study, variant in models]
    return count_all(jobs, processes, on_new)


def full_size_counts(
    studies: Mapping[str, Study], on_new: Callable[[int], None] = lambda count: None
) -> dict[str, Complexity]:
    """Every network of the studies as STUDY/VARIANT."""
    models = [(study, variant) for study in studies.values() for variant in study.published]
    names = [f"{study.id}/{variant.id}" for study, variant in models]
    return dict(zip(names, count_full_size(models, free_cores(), on_new), strict=True))


def as_trained(recipe: Recipe) -> Job:
    """What is to be counted of a run: its network with the outputs that its data ask for, or with
    the official head's where that is not known beforehand.
    """
    return recipe, EMBEDDED_CLASSES.get(recipe.data.source.kind)


def count_all(
    jobs: Sequence[Job], processes: int = 1, on_new: Callable[[int], None] = lambda count: None
) -> list[Complexity]:
    """The counts of each recipe's network with so many outputs, in order; one network is counted
    once.
    """
    paths = [_path(*job) for job in jobs]
    found = {path: _read(path) for path in paths}
    new = {path: job for path, job in zip(paths, jobs, strict=True) if found[path] is None}
    if new:
        on_new(len(new))
        found.update(zip(new, _count_at_once(list(new.values()), processes), strict=True))
    return [known for path in paths if (known := found[path]) is not None]


def macs_by_run(cells: Sequence[Cell]) -> dict[str, float]:
    """Multiply-adds in 1e9 of each cell's network by run id, with the classes of its data where
    they are known and of the official head else.
    """
    jobs: dict[tuple[str, str], Job] = {}  # a variant's network is that of all its seeds
    for cell in cells:
        jobs.setdefault((cell.study, cell.variant), as_trained(cell.recipe))
    counted = count_all(list(jobs.values()), free_cores() if len(jobs) > FEW else 1)
    macs_b = {place: found.macs_b for place, found in zip(jobs, counted, strict=True)}
    return {cell.run_id: macs_b[cell.study, cell.variant] for cell in cells}


def longest_first(cells: Sequence[Cell]) -> list[Cell]:
    """Cells seed by seed, within a seed by falling work: no long run is left to end alone."""
    macs_b = macs_by_run(cells)
    work = {c.run_id: macs_b[c.run_id] * c.recipe.train.epochs for c in cells}
    return sorted(cells, key=lambda cell: (cell.seed, -work[cell.run_id]))


def _count_at_once(jobs: Sequence[Job], processes: int) -> list[Complexity]:
    """Counts in order; one process counts all that need timm, whose import takes as long as the
    rest.
    """
    if processes == 1 or len(jobs) == 1:
        return _count_all(jobs)
    import_module("experiments.networks")  # once, for all processes
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


def _count_all(jobs: Sequence[Job]) -> list[Complexity]:
    return [counts(*job) for job in jobs]
