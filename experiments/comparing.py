"""Two runs, or two studies, side by side: what differs in how they were made, and in what came out.

Two runs differ by one seed's noise, so their difference has no interval. Two studies are compared
variant by variant over the seeds that both have: what they share, be it data, order or whole runs,
then leaves their difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.grid import collect
from experiments.inspection import complete_tree, readable_difference
from experiments.statistics import Estimate, estimate
from experiments.store import Result, Store, metric_values, read_result
from experiments.study import MOST_SEEDS, Selection, Study, cells, needs_data
from experiments.study_file import load_profile, load_study, shipped_studies
from spinenet.yaml_text import is_yaml

SIZES = {"MACs M": ("macs_b", 1e3), "params M": ("params_m", 1.0)}
SPEED = {"pictures/s": ("images_per_second", 1.0)}

Recipes = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Line:
    """One quantity in A and in B, and what B has more."""

    name: str
    a: Estimate | None
    b: Estimate | None
    gain: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """A table of lines, and keys of the recipes that differ: key → (in A, in B). `only_a` and
    `only_b` are variants of which the other side has no run.
    """

    a: str
    b: str
    lines: tuple[Line, ...]
    recipe: Recipes
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()


def compare(a: str, b: str, runs: Sequence[Path]) -> Comparison:
    """Compare two runs (by folder, its name, run id, or an id's beginning) or two studies (STUDY or
    STUDY@PROFILE), looked for in every folder of `runs`.

    Raises UserError for what is neither, and for a run against a study.
    """
    stores = [Store(folder) for folder in runs]
    first, second = _found(a, stores), _found(b, stores)
    if isinstance(first, Result) and isinstance(second, Result):
        return compare_runs(first, second)
    if isinstance(first, _Selected) and isinstance(second, _Selected):
        return _compare_studies(first, second)
    raise UserError(f"{a} and {b}: a run cannot be compared with a study; give two of a kind")


@dataclass(frozen=True)
class _Selected:
    """A study at a profile, with its results by variant and seed."""

    name: str
    study: Study
    results: Mapping[str, Mapping[int, Result]]


def _found(name: str, stores: Sequence[Store]) -> Result | _Selected:
    folder = _folder(name, stores)
    if folder is None:
        return _selected(name, stores)
    result = read_result(folder)
    if result is None:
        raise UserError(f"{folder}: has no result.json; this run is not finished")
    return result


def _folder(name: str, stores: Sequence[Store]) -> Path | None:
    """The one run's folder that `name` means, if it means any."""
    if Path(name).is_dir():
        return Path(name)
    by_name = {path.name: path for store in reversed(stores) for path in store.folders()}
    if name in by_name or not name:
        return by_name.get(name)
    begun = [path for path in by_name.values() if _run_id(path).startswith(name)]
    if len(begun) > 1:
        found = ", ".join(path.name for path in begun)
        raise UserError(f"{name}: begins the ids of {len(begun)} runs: {found}; give more digits")
    return begun[0] if begun else None


def _run_id(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def _selected(name: str, stores: Sequence[Store]) -> _Selected:
    study_name, _, profile_name = name.partition("@")
    try:
        study = load_study(study_name)
    except UserError as error:
        raise UserError(_unknown(name, stores, error)) from None
    profile = load_profile(profile_name or "embedded")
    selection = Selection(profile=profile, seeds=MOST_SEEDS)
    if needs_data(study, selection):
        raise UserError(
            f"{name}: profile {profile.id!r} is run on data of one's own, which a study's name "
            "does not tell; compare two of its runs by their folders"
        )
    results = _collected(cells(study, selection), stores)
    if not results:
        raise UserError(
            f"{name}: {_places(stores)} has no finished run of it; `spinenet reproduce "
            f"{study_name} --profile {profile.id}` makes some, --runs names another folder"
        )
    return _Selected(f"{study.id}@{profile.id}", study, results)


def _collected(grid: Sequence[Any], stores: Sequence[Store]) -> dict[str, dict[int, Result]]:
    """Results by variant and seed; of a run that several stores have, the first's."""
    found: dict[str, dict[int, Result]] = {}
    for store in stores:
        for variant, by_seed in collect(grid, store).items():
            found[variant] = {**by_seed, **found.get(variant, {})}
    return found


def _unknown(name: str, stores: Sequence[Store], error: UserError) -> str:
    """Why a name is neither a run nor a study, and the nearest of both."""
    folders = [path for store in stores for path in store.folders()]
    if get_close_matches(name, shipped_studies(), n=1) or is_yaml(name):
        return f"{name}: no run in {_places(stores)} has this name or id, and {error}"
    names = {word: path.name for path in folders for word in (path.name, _run_id(path))}
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {names[near[0]]!r}? " if near else ""
    where = _places(stores)
    return f"{name}: neither a run in {where} nor a study; {hint}--runs names another folder"


def _places(stores: Sequence[Store]) -> str:
    return " or ".join(str(store.root) for store in stores)


def compare_runs(a: Result, b: Result) -> Comparison:
    """Two complete runs: size and speed, then metrics, then each class."""
    lines = [
        _line(name, [getattr(a, field) * factor], [getattr(b, field) * factor])
        for name, (field, factor) in (SIZES | SPEED).items()
    ]
    for mine, theirs in ((a.metrics, b.metrics), (_by_class(a), _by_class(b))):
        for name in dict.fromkeys([*mine, *theirs]):
            lines.append(_line(name, *([of[name]] if name in of else [] for of in (mine, theirs))))
    changed = readable_difference(complete_tree(b.recipe), complete_tree(a.recipe))
    return Comparison(f"{a.name}-{a.run_id}", f"{b.name}-{b.run_id}", tuple(lines), changed)


def _by_class(result: Result) -> dict[str, float]:
    metric = "top1" if result.recipe["model"]["kind"] == "classifier" else "AP"
    return {f"{metric} of {name}": value for name, value in result.by_class.items()}


def _compare_studies(a: _Selected, b: _Selected) -> Comparison:
    metric = a.study.metrics[0]
    variants = dict.fromkeys([*a.study.variants, *b.study.variants])
    lines = []
    for variant in variants:
        sides = [side.results.get(variant, {}) for side in (a, b)]
        if any(metric_values(side, metric) for side in sides):
            lines.append(_paired(f"{variant} {metric}", metric, *sides))
    return Comparison(
        a.name,
        b.name,
        tuple(lines),
        _changed(a, b),
        only_a=tuple(v for v in variants if v in a.results and v not in b.results),
        only_b=tuple(v for v in variants if v in b.results and v not in a.results),
    )


def _paired(name: str, metric: str, a: Mapping[int, Result], b: Mapping[int, Result]) -> Line:
    """A line whose gain is over the seeds of both, and has no noise where those are one run."""
    mine, theirs = metric_values(a, metric), metric_values(b, metric)
    line = _line(name, list(mine.values()), list(theirs.values()))
    seeds = mine.keys() & theirs.keys()
    if not seeds:
        return Line(name, line.a, line.b, None)
    if all(a[seed].run_id == b[seed].run_id for seed in seeds):
        return Line(name, line.a, line.b, Estimate(0.0, None, len(seeds)))
    gain = estimate([theirs[seed] - mine[seed] for seed in sorted(seeds)])
    return Line(name, line.a, line.b, gain)


def _changed(a: _Selected, b: _Selected) -> Recipes:
    """What differs in the recipes of the variants that both have: a key that differs alike in all
    of them stands once, any other after its variant.
    """
    shared = [v for v in a.results if v in b.results]
    by_variant = {v: _difference(a.results[v], b.results[v]) for v in shared}
    changed: dict[str, tuple[Any, Any]] = {}
    for variant, found in by_variant.items():
        for key, pair in found.items():
            is_alike = all(other.get(key) == pair for other in by_variant.values())
            changed[key if is_alike else f"{variant}: {key}"] = pair
    return changed


def _difference(a: Mapping[int, Result], b: Mapping[int, Result]) -> Recipes:
    first, second = (complete_tree(next(iter(side.values())).recipe) for side in (a, b))
    return readable_difference({**second, "seed": first["seed"]}, first)


def _line(name: str, a: list[float], b: list[float]) -> Line:
    gain = Estimate(b[0] - a[0], None, 1) if len(a) == len(b) == 1 else None
    return Line(name, estimate(a) if a else None, estimate(b) if b else None, gain)
