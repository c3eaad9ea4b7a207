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
from pathlib import Path
from typing import Any, Literal

from datamodules import ClassSourceConfig, DataSourceConfig
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
from experiments.protocols import protocols
from experiments.recipe import Recipe, open_data_of, plain, run_ids, semantic_fields

Metric = Literal["AP", "mask/AP", "top1", "top5", "macs_b", "params_m"]
MOST_SEEDS = 20  # looked for in a store by what takes whatever is there
COUNTED: tuple[Metric, ...] = ("macs_b", "params_m")  # known without a run


@dataclass(frozen=True)
class PaperValue:
    """A printed number and where it stands."""

    value: float
    source: str
    note: str = ""

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise ValueError("a printed number needs its source, such as 'table 2'")


@dataclass(frozen=True)
class Variant:
    """A row of the study: its changes, the paper's numbers, what differs at the paper's size.

    `times` are factors on what recipe and profile say, for what a variant states relative to them.
    `protocol` is that of the printed numbers where it is not the study's. `unpublished` says why
    the network of a printed row cannot be had: the row is shown, never run.
    """

    id: str
    changes: tuple[Changes, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    why: str = ""
    paper: Mapping[str, PaperValue] = field(default_factory=dict)
    full_size: tuple[Changes, ...] = ()
    start: str = ""
    protocol: str = ""
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
    """How big: changes to every variant, more for each kind of model, and the number of seeds.

    With `full_size` every variant is trained at the paper's own size, by its protocol. The ledger
    leaves out the runs of a profile that `is_evidence` for nothing.
    """

    id: str
    title: str
    changes: tuple[Changes, ...] = ()
    seeds: int = 1
    by_model: Mapping[str, tuple[Changes, ...]] = field(default_factory=dict)
    full_size: bool = False
    is_evidence: bool = True

    def changes_for(self, tree: Tree) -> tuple[Changes, ...]:
        """All changes to a recipe with this kind of model."""
        return (*self.changes, *self.by_model.get(tree["model"]["kind"], ()))


@dataclass(frozen=True)
class Study:
    """A study with everything inherited written out.

    `metrics` are what its table shows of a run, the first of them what it is about. `classes` are
    the outputs of the paper's own head, which the printed counts include, where they are not the
    usual ones of the task. `protocol` is the paper's, of all variants that name no other. `file` is
    what errors point at.
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
    protocol: str = ""
    file: str = ""

    @property
    def origin(self) -> str:
        """Where a mistake is to be mended."""
        return self.file or self.id

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

    @property
    def entry(self) -> str:
        """What a run notes of the grid that it was run for, whatever becomes of the recipe."""
        return f"{self.study}/{self.variant}@{self.profile}"


@dataclass(frozen=True)
class Selection:
    """What a user asks of a study: profile, seeds, data of their own, overrides, some of the
    variants, the file of weights to start from (whose digest is among the changes). With
    `any_seeds` nobody asked for a number, and `seeds` is the profile's.
    """

    profile: Profile
    seeds: int
    source: DataSourceConfig | None = None
    changes: tuple[Changes, ...] = ()
    only: tuple[str, ...] = ()
    weights: Path | None = None
    any_seeds: bool = False


def variant_tree(
    study: Study, variant: Variant, profile: Profile | None, changes: Sequence[Changes] = ()
) -> Tree:
    """The recipe of a variant, as a tree. Without a profile it is at the paper's own size.

    The variant comes before profile and protocol, to choose the structure that they then size, and
    after them again, since what a variant states is what it is about. What it states of the
    paper's size alone comes last, but for the user's `changes`.
    """
    tree = apply(load_recipe(study.recipe), (*study.changes, *variant.changes))
    sizes: list[Changes] = []
    if profile is not None:
        sizes += profile.changes_for(tree)
    is_full = profile is None or profile.full_size
    if is_full and (name := variant.protocol or study.protocol):
        sizes.append(protocols()[name])
    tree = apply(tree, (*sizes, *after_last_choice(variant.changes)))
    tree = multiply(tree, variant.times, origin=f"{study.origin}: variants.{variant.id}")
    return apply(tree, (*(variant.full_size if is_full else ()), *changes))


def with_source(tree: Tree, source: DataSourceConfig | None) -> Tree:
    """The tree on the user's own data, if there are any."""
    if source is None:
        return tree
    there, given = tree["data"]["source"], plain(source)
    if there["kind"] == given["kind"] and "root" in given:
        given = {**there, "root": given["root"]}  # what study and --set say of such data stands
    return {**tree, "data": {**tree["data"], "source": given}}


def own_source(study: Study, sources: Sequence[DataSourceConfig]) -> DataSourceConfig | None:
    """Of several data sets that of the study's own kind, else the first of its task, else none."""
    tree = apply(load_recipe(study.recipe), study.changes)
    classifies = tree["model"]["kind"] == "classifier"
    fitting = [s for s in sources if isinstance(s, ClassSourceConfig) == classifies]
    same = [s for s in fitting if s.kind == tree["data"]["source"]["kind"]]
    return next(iter(same or fitting), None)


def needs_data(study: Study, selection: Selection) -> bool:
    """Whether nobody has said what to run the study on: neither the profile nor the user."""
    changes = selection.changes
    trees = (variant_tree(study, v, selection.profile, changes) for v in study.published[:1])
    return any(_lacks_data(with_source(tree, selection.source)) for tree in trees)


def cells(
    study: Study,
    selection: Selection,
    fingerprints: Mapping[DataSourceConfig, str] | None = None,
    *,
    without_data: bool = False,
) -> list[Cell]:
    """The grid, seed by seed, so that every variant has a first result early.

    A data source whose fingerprint is given need not be at hand. Raises UserError where there is no
    data to run on, unless `without_data` asks for a grid to look at only: its run ids then are
    those of no data, and no store has them.
    """
    chosen = _chosen_variants(study, selection)
    known = _Fingerprints(fingerprints or {})
    grid = []
    for variant in chosen:
        tree = variant_tree(study, variant, selection.profile, selection.changes)
        tree = with_source(tree, selection.source)
        if _lacks_data(tree) and not without_data:
            raise UserError(
                f"{study.id}: profile {selection.profile.id!r} brings no data; "
                f"give --data {tree['data']['source']['kind']}:FOLDER"
            )
        recipe = from_tree(tree, origin=f"{study.origin}: variant {variant.id!r}")
        seeds = range(recipe.seed, recipe.seed + selection.seeds)
        identities = run_ids(recipe, seeds, known.of(recipe))
        for seed, identity in enumerate(identities):
            seeded = replace(recipe, seed=recipe.seed + seed)
            grid.append(Cell(study.id, selection.profile.id, variant.id, seed, seeded, identity))
    refuse_twins(study, [cell for cell in grid if cell.seed == 0])
    return sorted(grid, key=lambda cell: cell.seed)


def refuse_twins(study: Study, cells: Sequence[Cell]) -> None:
    """Raise UserError if two of the cells' variants are one recipe here and at the paper's size."""
    met: dict[str, list[str]] = {}
    for cell in cells:
        for first in met.setdefault(cell.run_id, []):
            if _full_size(study, first) == _full_size(study, cell.variant):
                raise UserError(
                    f"{study.origin}: variants {first!r} and {cell.variant!r} are the same recipe, "
                    f"in profile {cell.profile!r} and at the paper's size; change one of them or "
                    "leave it out"
                )
        met[cell.run_id].append(cell.variant)


def _full_size(study: Study, variant: str) -> dict[str, Any]:
    tree = variant_tree(study, study.variants[variant], None)
    return semantic_fields(from_tree(tree, origin=f"{study.origin}: variant {variant!r}"))


def _chosen_variants(study: Study, selection: Selection) -> list[Variant]:
    for name in selection.only:
        if name not in study.variants:
            raise UserError(
                f"{study.origin}: unknown variant {name!r}; {did_you_mean(name, study.variants)}"
            )
        if reason := study.variants[name].unpublished:
            raise UserError(f"{study.origin}: variant {name!r} cannot be run: {reason}")
    return [v for v in study.published if not selection.only or v.id in selection.only]


def _lacks_data(tree: Tree) -> bool:
    return tree["data"]["source"].get("root") == ""


class _Fingerprints:
    """Fingerprints of the data sources met, each taken once; none where no data are named."""

    def __init__(self, known: Mapping[DataSourceConfig, str]) -> None:
        self._given = known
        self._read: dict[tuple[DataSourceConfig, str, bool], str] = {}

    def of(self, recipe: Recipe) -> str:
        source = recipe.data.source
        if getattr(source, "root", None) == "":
            return ""
        if source in self._given:
            return self._given[source]
        key = source, recipe.data.on_error, recipe.learns_masks
        if key not in self._read:
            self._read[key] = open_data_of(recipe).fingerprint
        return self._read[key]
