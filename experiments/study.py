"""A study: one table or figure of the paper as data, and the grid of runs that it asks for.

A study names a base recipe, variants as differences from it, the paper's numbers with their
sources, and claims. A variant starts at the study's base or, with `from`, at another variant. A
study with `base` extends another study: it inherits its variants and claims. A profile says how
big: it is again a named difference, put between what chooses a variant's structure and what the
variant insists on.

study x profile x variant x seed = a cell, which is one recipe and so one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from datamodules import DataSourceConfig, open_data
from experiments.compose import (
    Changes,
    Tree,
    after_last_choice,
    apply,
    from_tree,
    load_recipe,
    multiply,
)
from experiments.errors import UserError, did_you_mean
from experiments.recipe import DataConfig, Recipe, plain, run_id

Metric = Literal["AP", "mask/AP", "top1", "top5", "macs_b", "params_m"]
COUNTED: tuple[Metric, ...] = ("macs_b", "params_m")  # known without a run


@dataclass(frozen=True)
class PaperValue:
    """A printed number and where it stands."""

    value: float
    source: str
    note: str = ""


@dataclass(frozen=True)
class Variant:
    """A row of the study: its changes, the paper's numbers, what differs at the paper's size.

    `times` are factors on what recipe and profile say, for what a variant states relative to them.
    `unpublished` says why the network of a printed row cannot be had: the row is shown, never run.
    """

    id: str
    changes: tuple[Changes, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    why: str = ""
    paper: Mapping[str, PaperValue] = field(default_factory=dict)
    full_size: tuple[Changes, ...] = ()
    start: str = ""
    unpublished: str = ""

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.title or self.id


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as data: `a` against `b` in `metric`.

    `greater`: a - b is above zero. `equal_within`: a - b lies within `margin`. `paper` is the
    paper's own a - b.
    """

    id: str
    text: str
    a: str
    b: str
    relation: Literal["greater", "equal_within"]
    source: str
    metric: Metric = "AP"
    paper: float | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.relation == "equal_within" and self.margin <= 0:
            raise ValueError("equal_within needs a margin above 0")


@dataclass(frozen=True)
class Profile:
    """How big: changes to every variant, more for each kind of model, and the number of seeds."""

    id: str
    title: str
    changes: tuple[Changes, ...] = ()
    seeds: int = 1
    by_model: Mapping[str, tuple[Changes, ...]] = field(default_factory=dict)

    def changes_for(self, tree: Tree) -> tuple[Changes, ...]:
        """All changes to a recipe with this kind of model."""
        return (*self.changes, *self.by_model.get(tree["model"]["kind"], ()))


@dataclass(frozen=True)
class Study:
    """A study with everything inherited written out.

    `metrics` are what its table shows of a run, the first of them what it is about. `classes` are
    the outputs of the paper's own head, which the printed counts include, where they are not the
    usual ones of the task.
    """

    id: str
    title: str
    recipe: str
    variants: Mapping[str, Variant]
    changes: tuple[Changes, ...] = ()
    claims: tuple[Claim, ...] = ()
    source: str = ""
    metrics: tuple[Metric, ...] = ("AP",)
    classes: int | None = None

    @property
    def published(self) -> list[Variant]:
        """The variants whose networks can be had."""
        return [v for v in self.variants.values() if not v.unpublished]


@dataclass(frozen=True)
class Cell:
    """One entry of the grid."""

    study: str
    profile: str
    variant: str
    seed: int
    recipe: Recipe
    run_id: str

    @property
    def label(self) -> str:
        """For progress and errors."""
        return f"{self.variant} seed {self.seed}"


@dataclass(frozen=True)
class Selection:
    """What a user asks of a study: profile, seeds, data of their own, overrides, some of the
    variants.
    """

    profile: Profile
    seeds: int
    source: DataSourceConfig | None = None
    changes: tuple[Changes, ...] = ()
    only: tuple[str, ...] = ()


def variant_tree(
    study: Study, variant: Variant, profile: Profile | None, changes: Sequence[Changes] = ()
) -> Tree:
    """The recipe of a variant, as a tree. Without a profile it is at the paper's own size.

    The variant comes before the profile, to choose the structure that the profile then sizes, and
    after it again, since what a variant states is what it is about.
    """
    tree = apply(load_recipe(study.recipe), (*study.changes, *variant.changes))
    origin = f"{study.id}: variants.{variant.id}"
    if profile is None:
        return apply(multiply(tree, variant.times, origin=origin), variant.full_size)
    stated = after_last_choice(variant.changes)
    sized = apply(tree, (*profile.changes_for(tree), *stated))
    return apply(multiply(sized, variant.times, origin=origin), changes)


def with_source(tree: Tree, source: DataSourceConfig | None) -> Tree:
    """The tree on the user's own data, if there are any."""
    if source is None:
        return tree
    return {**tree, "data": {**tree["data"], "source": plain(source)}}


def cells(
    study: Study, selection: Selection, fingerprints: Mapping[DataSourceConfig, str] | None = None
) -> list[Cell]:
    """The grid, seed by seed, so that every variant has a first result early.

    A data source whose fingerprint is given need not be at hand.
    """
    for name in selection.only:
        if name not in study.variants:
            raise UserError(
                f"{study.id}: unknown variant {name!r}; {did_you_mean(name, study.variants)}"
            )
        if reason := study.variants[name].unpublished:
            raise UserError(f"{study.id}: variant {name!r} cannot be run: {reason}")
    chosen = [v for v in study.published if not selection.only or v.id in selection.only]
    known = _Fingerprints(fingerprints or {})
    grid = []
    for variant in chosen:
        tree = variant_tree(study, variant, selection.profile, selection.changes)
        tree = with_source(tree, selection.source)
        recipe = from_tree(tree, origin=f"{study.id}: variant {variant.id!r}")
        for seed in range(selection.seeds):
            seeded = replace(recipe, seed=recipe.seed + seed)
            identity = run_id(seeded, known.of(recipe.data))
            grid.append(Cell(study.id, selection.profile.id, variant.id, seed, seeded, identity))
    return sorted(grid, key=lambda cell: cell.seed)


class _Fingerprints:
    """Fingerprints of the data sources met, each taken once."""

    def __init__(self, known: Mapping[DataSourceConfig, str]) -> None:
        self._known = dict(known)

    def of(self, data: DataConfig) -> str:
        if data.source not in self._known:
            self._known[data.source] = open_data(data.source).fingerprint
        return self._known[data.source]
