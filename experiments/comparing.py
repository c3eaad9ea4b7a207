"""Two runs, or two studies, side by side: what differs in how they were made, and in what came out.

Two runs differ by one seed's noise, so their difference has no interval. Two studies are compared
variant by variant, over whatever seeds each has: their seeds do not pair, because what differs
between them may be the data or the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.compose import difference
from experiments.errors import UserError
from experiments.grid import collect
from experiments.statistics import Estimate, estimate, welch
from experiments.store import Result, Store, metric_values, read_result
from experiments.study import MOST_SEEDS, Selection, Study, cells
from experiments.study_file import load_profile, load_study


@dataclass(frozen=True)
class Line:
    """One quantity in A and in B, and what B has more."""

    name: str
    a: Estimate | None
    b: Estimate | None
    gain: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """A table of lines, and keys of the recipes that differ: key → (in A, in B)."""

    a: str
    b: str
    lines: tuple[Line, ...]
    recipe: Mapping[str, tuple[Any, Any]]


def compare(a: str, b: str, runs: Path) -> Comparison:
    """Compare two runs (folders or run ids) or two studies (STUDY or STUDY@PROFILE).

    Raises UserError for what is neither, and for a run against a study.
    """
    first, second = _found(a, runs), _found(b, runs)
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
    recipes: Mapping[str, Any]
    results: Mapping[str, Mapping[int, Result]]


def _found(name: str, runs: Path) -> Result | _Selected:
    folder = Path(name) if Path(name).is_dir() else Store(runs).find(name)
    if folder is None:
        return _selected(name, runs)
    result = read_result(folder)
    if result is None:
        raise UserError(f"{folder}: has no result.json; this run is not finished")
    return result


def _selected(name: str, runs: Path) -> _Selected:
    study_name, _, profile_name = name.partition("@")
    try:
        study = load_study(study_name)
    except UserError as error:
        raise UserError(f"{name}: no run in {runs} has this id, and {error}") from None
    profile = load_profile(profile_name or "embedded")
    grid = cells(study, Selection(profile=profile, seeds=MOST_SEEDS))
    results = collect(grid, Store(runs))
    if not results:
        raise UserError(
            f"{name}: {runs} has no finished run of it; `spinenet reproduce {study_name} "
            f"--profile {profile.id}` makes some, --runs names another folder"
        )
    return _Selected(
        name=f"{study.id}@{profile.id}",
        study=study,
        recipes={v: next(iter(by_seed.values())).recipe for v, by_seed in results.items()},
        results=results,
    )


def compare_runs(a: Result, b: Result) -> Comparison:
    """Two complete runs: size and speed, then metrics, then each class."""
    sizes = {"MACs M": "macs_b", "params M": "params_m", "pictures/s": "images_per_second"}
    lines = [_line(name, [getattr(a, f)], [getattr(b, f)]) for name, f in sizes.items()]
    lines[0] = _line("MACs M", [a.macs_b * 1e3], [b.macs_b * 1e3])
    for title, mine, theirs in (("", a.metrics, b.metrics), ("AP of ", a.by_class, b.by_class)):
        for name in dict.fromkeys([*mine, *theirs]):
            values = [[source[name]] if name in source else [] for source in (mine, theirs)]
            lines.append(_line(f"{title}{name}", *values))
    return Comparison(
        f"{a.name}-{a.run_id}", f"{b.name}-{b.run_id}", tuple(lines), difference(b.recipe, a.recipe)
    )


def _compare_studies(a: _Selected, b: _Selected) -> Comparison:
    metric = a.study.metrics[0]
    lines = []
    for variant in dict.fromkeys([*a.study.variants, *b.study.variants]):
        values = [
            list(metric_values(side.results.get(variant, {}), metric).values()) for side in (a, b)
        ]
        if any(values):
            lines.append(_line(f"{variant} {metric}", *values))
    shared = next((v for v in a.recipes if v in b.recipes), None)
    changed = {} if shared is None else difference(b.recipes[shared], a.recipes[shared])
    return Comparison(a.name, b.name, tuple(lines), changed)


def _line(name: str, a: list[float], b: list[float]) -> Line:
    gain = welch(b, a) if a and b else None
    return Line(name, estimate(a) if a else None, estimate(b) if b else None, gain)
