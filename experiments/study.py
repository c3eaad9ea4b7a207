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
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from datamodules import CocoFolderConfig, open_source
from experiments.compose import Changes, Tree, apply, from_tree, load_recipe, read_yaml
from experiments.errors import UserError, did_you_mean
from experiments.recipe import DataConfig, Recipe, run_id

PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class PaperValue:
    """A printed number and where it stands."""

    value: float
    source: str
    note: str = ""


@dataclass(frozen=True)
class Variant:
    """A row of the study: its changes, the paper's numbers, what differs at the paper's size."""

    id: str
    changes: tuple[Changes, ...] = ()
    title: str = ""
    why: str = ""
    paper: Mapping[str, PaperValue] = field(default_factory=dict)
    full_size: tuple[Changes, ...] = ()
    start: str = ""

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
    metric: Literal["AP", "macs_b", "params_m"] = "AP"
    paper: float | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.relation == "equal_within" and self.margin <= 0:
            raise ValueError("equal_within needs a margin above 0")


@dataclass(frozen=True)
class Profile:
    """How big: overrides for every variant, the seeds by default, and what to expect."""

    id: str
    title: str
    changes: tuple[Changes, ...] = ()
    seeds: int = 1
    expect: str = ""


@dataclass(frozen=True)
class Study:
    """A study with everything inherited written out."""

    id: str
    title: str
    recipe: str
    variants: Mapping[str, Variant]
    changes: tuple[Changes, ...] = ()
    claims: tuple[Claim, ...] = ()
    source: str = ""


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
    source: CocoFolderConfig | None = None
    changes: tuple[Changes, ...] = ()
    only: tuple[str, ...] = ()


def load_study(name_or_path: str) -> Study:
    """A study by name or file. Raises UserError that names the file, the key and the way out."""
    path = _study_path(name_or_path)
    data = read_yaml(path)
    known = {"title", "source", "base", "recipe", "set", "variants", "claims"}
    for key in data:
        if key not in known:
            raise UserError(f"{path.name}: unknown key {key!r}; {did_you_mean(key, known)}")
    base = _base_study(data, path)
    variants = {**base.variants, **_read_variants(data.get("variants") or {}, base, path)}
    claims = tuple(
        _read_claim(c, i, variants, path) for i, c in enumerate(data.get("claims") or [])
    )
    return Study(
        id=path.stem,
        title=str(data.get("title", base.title)),
        source=str(data.get("source", base.source)),
        recipe=str(data.get("recipe", base.recipe)),
        changes=(*base.changes, Changes(data.get("set") or {}, f"{path.name}: set", path.parent)),
        variants=variants,
        claims=(*base.claims, *claims),
    )


def load_profile(name: str) -> Profile:
    """A profile that comes with the package, or a YAML file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in PROFILES.glob("*.yaml")]
        raise UserError(f"no profile {name!r}; {did_you_mean(name, known)}")
    data = read_yaml(path)
    base = load_profile(str(data.pop("base"))) if "base" in data else Profile(path.stem, "")
    title, seeds, expect = (data.pop(k, getattr(base, k)) for k in ("title", "seeds", "expect"))
    changes = Changes(data, f"profile {path.stem}", path.parent)
    return Profile(path.stem, title, (*base.changes, changes), seeds, expect)


def variant_tree(
    study: Study, variant: Variant, profile: Profile | None, changes: Sequence[Changes] = ()
) -> Tree:
    """The recipe of a variant, as a tree. Without a profile it is at the paper's own size.

    The variant comes before the profile, to choose the structure that the profile then sizes, and
    after it again, since what a variant states is what it is about.
    """
    tree = apply(load_recipe(study.recipe), (*study.changes, *variant.changes))
    if profile is None:
        return apply(tree, variant.full_size)
    return apply(tree, (*profile.changes, *variant.changes, *changes))


def cells(study: Study, selection: Selection) -> list[Cell]:
    """The grid, seed by seed, so that every variant has a first result early."""
    for name in selection.only:
        if name not in study.variants:
            raise UserError(
                f"{study.id}: unknown variant {name!r}; {did_you_mean(name, study.variants)}"
            )
    chosen = [v for v in study.variants.values() if not selection.only or v.id in selection.only]
    fingerprints = _Fingerprints()
    grid = []
    for variant in chosen:
        tree = variant_tree(study, variant, selection.profile, selection.changes)
        recipe = from_tree(tree, origin=f"{study.id}: variant {variant.id!r}")
        if selection.source is not None:
            recipe = replace(recipe, data=replace(recipe.data, source=selection.source))
        for seed in range(selection.seeds):
            seeded = replace(recipe, seed=recipe.seed + seed)
            identity = run_id(seeded, fingerprints.of(recipe.data))
            grid.append(Cell(study.id, selection.profile.id, variant.id, seed, seeded, identity))
    return sorted(grid, key=lambda cell: cell.seed)


def parse_source(text: str | None) -> CocoFolderConfig | None:
    """`--data coco:FOLDER` as a source; None stays None. Raises UserError for another form."""
    if text is None:
        return None
    kind, _, root = text.partition(":")
    if kind != "coco" or not root:
        raise UserError(f"--data {text}: expected coco:FOLDER, a folder in COCO's format")
    return CocoFolderConfig(root=root)


class _Fingerprints:
    """Fingerprints of the data sources met, each taken once."""

    def __init__(self) -> None:
        self._known: dict[Any, str] = {}

    def of(self, data: DataConfig) -> str:
        if data.source not in self._known:
            self._known[data.source] = open_source(data.source).fingerprint
        return self._known[data.source]


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return sorted(
        p.name.removesuffix(".yaml")
        for p in files("ablations").iterdir()
        if p.name.endswith(".yaml")
    )


def _study_path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    path = Path(str(files("ablations"))) / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"no study {name!r}; {did_you_mean(name, shipped_studies())}; or give a .yaml file"
        )
    return path


def _base_study(data: Mapping[str, Any], path: Path) -> Study:
    if "base" not in data:
        if "recipe" not in data:
            raise UserError(f"{path.name}: give recipe: NAME, or base: STUDY to extend a study")
        return Study(id="", title=path.stem, recipe="", variants={})
    name = str(data["base"])
    if name.endswith((".yaml", ".yml")):
        return load_study(str(path.parent / name))
    try:
        return load_study(name)
    except UserError as error:
        raise UserError(f"{path.name}: base: {error}") from None


def _read_variants(data: Mapping[str, Any], base: Study, path: Path) -> dict[str, Variant]:
    own = {f.name for f in fields(Variant)} - {"id", "changes", "start"}
    found: dict[str, Variant] = {}
    for name, body in data.items():
        body = dict(body or {})
        start = body.pop("from", None)
        known = {**base.variants, **found}
        if start is not None and start not in known:
            raise UserError(
                f"{path.name}: variants.{name}.from: unknown variant {start!r}; "
                f"{did_you_mean(start, known)}"
            )
        first = known[start] if start is not None else Variant(id="")
        where = f"{path.name}: variant {name!r}"
        described = {k: body.pop(k) for k in list(body) if k in own}
        described["paper"] = {
            metric: _typed(PaperValue, value, f"{path.name}: variants.{name}.paper.{metric}")
            for metric, value in described.get("paper", {}).items()
        }
        full_size = Changes(described.pop("full_size", {}), f"{where}: full_size", path.parent)
        found[name] = Variant(
            id=name,
            changes=(*first.changes, Changes(body, where, path.parent)),
            full_size=(*first.full_size, full_size),
            start=start or "",
            **described,
        )
    return found


def _read_claim(data: Any, index: int, variants: Mapping[str, Variant], path: Path) -> Claim:
    claim: Claim = _typed(Claim, data, f"{path.name}: claims[{index}]")
    for side in ("a", "b"):
        if getattr(claim, side) not in variants:
            name = getattr(claim, side)
            raise UserError(
                f"{path.name}: claims[{index}].{side}: unknown variant {name!r}; "
                f"{did_you_mean(name, variants)}"
            )
    return claim


def _typed(cls: type, data: Any, where: str) -> Any:
    """`data` as the dataclass `cls`, with unknown keys refused."""
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected a mapping, found {data!r}")
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; {did_you_mean(str(key), known)}")
    try:
        return TypeAdapter(cls).validate_python(dict(data))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(p) for p in problem["loc"])
        raise UserError(f"{where}{'.' if key else ''}{key}: {problem['msg']}") from None
