"""What `models` and `check` print: counts of every model, and a study's variants as differences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.compose import (
    Tree,
    default_tree,
    difference,
    from_tree,
    load_recipe,
    read_yaml,
)
from experiments.counting import as_trained, count_full_size, counts, full_size
from experiments.errors import UserError
from experiments.planning import planned_rows
from experiments.recipe import flatten, to_tree
from experiments.study import (
    PaperValue,
    Profile,
    Selection,
    Study,
    Variant,
    variant_tree,
)
from experiments.study_file import load_profile, load_study
from experiments.tables import markdown, printed, relative
from spinenet import zoo
from spinenet.yaml_text import is_yaml

if TYPE_CHECKING:
    from spinenet.counts import Complexity

# The studies whose rows are the paper's models.
MODEL_STUDIES = (
    "one_stage",
    "two_stage",
    "mobile",
    "classification",
    "classification_improved",
    "inaturalist",
)
COUNT_HEADER = ["model", "px", "MACs B", "printed", "diff", "params M", "printed", "diff"]
CLOSE = 0.01  # what a printed count may differ by


@dataclass(frozen=True)
class CountTable:
    """One study's models at the paper's size: counted, printed, difference; `ids` are what `show`
    calls their networks, empty where it knows none.
    """

    title: str
    rows: tuple[dict[str, Any], ...]
    ids: tuple[str, ...]

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[str(value) for value in row.values()] for row in self.rows]

    def cells_by_id(self) -> list[list[str]]:
        """The same, each model called as `show` takes it, with its title where that says more."""
        return [
            [_called(id_, title), *rest]
            for id_, (title, *rest) in zip(self.ids, self.cells(), strict=True)
        ]

    def markdown(self) -> str:
        """The table under its title."""
        return f"### {self.title}\n\n{markdown(COUNT_HEADER, self.cells())}\n"


def model_tables(processes: int = 1) -> list[CountTable]:
    """Every model of the paper, by task, counted by so many processes."""
    studies = [load_study(name) for name in MODEL_STUDIES]
    models = [(study, variant) for study in studies for variant in study.published]
    counted = zip(models, count_full_size(models, processes), strict=True)
    rows = (_count_row(*model, found) for model, found in counted)
    return [
        CountTable(
            s.title,
            tuple(islice(rows, len(s.published))),
            tuple(model_id(s, variant) for variant in s.published),
        )
        for s in studies
    ]


def model_id(study: Study, variant: Variant) -> str:
    """What `show` calls a variant's network, of the variant's side if there is one of that."""
    recipe = full_size(study, variant)
    backbone, side = recipe.model.backbone, recipe.data.transform.side
    same = [name for name in zoo.MODELS if zoo.model(name).backbone == backbone]
    return min(same, key=lambda name: zoo.model(name).side != side, default="")


def model_titles() -> dict[str, str]:
    """What the tables of `models` call a network → what `show` calls it."""
    studies = [load_study(name) for name in MODEL_STUDIES]
    named = {v.label: model_id(study, v) for study in studies for v in study.published}
    return {title: id_ for title, id_ in named.items() if id_}


def _called(id_: str, title: str) -> str:
    if not id_:
        return title
    return id_ if title.lower().replace(" ", "-") == id_ else f"{id_} ({title})"


def _count_row(study: Study, variant: Variant, found: Complexity) -> dict[str, Any]:
    macs, params = variant.paper.get("macs_b"), variant.paper.get("params_m")
    return {
        "model": variant.label,
        "side": full_size(study, variant).data.transform.side,
        "macs_b": f"{found.macs_b:.2f}",
        "macs_b_paper": printed(macs),
        "macs_b_difference": _agreement(found.macs_b, macs),
        "params_m": f"{found.params_m:.2f}",
        "params_m_paper": printed(params),
        "params_m_difference": _agreement(found.params_m, params),
    }


def _agreement(counted: float, value: PaperValue | None) -> str:
    """The difference in percent, marked where it is more than 1 % and more than rounding."""
    if value is None:
        return ""
    digits = len(f"{value.value!r}".partition(".")[2])
    rounding = abs(counted - value.value) <= 0.5 * 10**-digits
    unresolved = abs(counted / value.value - 1) > CLOSE and not rounding
    return relative(counted, value) + (" unresolved" if unresolved else "")


def check_study(name: str, profile_name: str, runs: Path = Path("runs")) -> dict[str, Any]:
    """Every variant's difference to what it starts from and its counts, in the profile and at full
    size; and what training the runs that `runs` lacks will take.
    """
    study, profile = load_study(name), load_profile(profile_name)
    # Refuses what cannot run.
    planned = planned_rows(study, Selection(profile=profile, seeds=profile.seeds), runs)
    own = set((read_yaml(Path(name)).get("variants") or {}) if is_yaml(name) else study.variants)
    return {
        "title": study.title,
        "variants": [_variant(study, v, profile, own) for v in study.published],
        "unpublished": {v.id: v.unpublished for v in study.variants.values() if v.unpublished},
        "seeds": profile.seeds,
        "price": {key: planned[key] for key in ("price_s", "wall_s", "macs", "summary", "basis")},
    }


def check_recipe(name: str) -> dict[str, Any]:
    """A recipe's difference to the defaults, and its counts."""
    tree = load_recipe(name)
    recipe = from_tree(tree, origin=name)
    found = counts(recipe)
    part = {
        "variant": Path(name).stem,
        "from": "against the defaults",
        "difference": readable_difference(tree, default_tree()),
    }
    sizes = {"macs_m": found.macs_b * 1e3, "params_m": found.params_m}
    full = {"full_macs_b": found.macs_b, "full_params_m": found.params_m, "own": "yes"}
    return {"title": "recipe", "variants": [part | sizes | full]}


def _variant(study: Study, variant: Variant, profile: Profile, own: set[str]) -> dict[str, Any]:
    start = study.variants[variant.start] if variant.start else Variant(id="base")
    tree, full_tree = (variant_tree(study, variant, size) for size in (profile, None))
    here = readable_difference(tree, variant_tree(study, start, profile))
    there = readable_difference(full_tree, variant_tree(study, start, None))
    origin = f"{study.origin}: variants.{variant.id}"
    small = counts(*as_trained(from_tree(tree, origin=origin)))
    full = counts(from_tree(full_tree, origin=origin), study.classes)
    return {
        "variant": variant.id,
        "from": f"from {variant.start}" if variant.start else "from the base",
        "difference": here,
        "full_difference": {k: there.get(k) for k in here | there if there.get(k) != here.get(k)},
        "macs_m": small.macs_b * 1e3,
        "params_m": small.params_m,
        "full_macs_b": full.macs_b,
        "full_params_m": full.params_m,
        "own": "yes" if variant.id in own else "inherited",
    }


def complete_tree(tree: Tree) -> Tree:
    """A stored recipe with the fields that came later at their defaults; as it is where today's
    code does not know it any more.
    """
    try:
        return to_tree(from_tree(tree, origin="result.json"))
    except (UserError, LookupError):
        return tree


def readable_difference(tree: Any, base: Any) -> dict[str, tuple[Any, Any]]:
    """Key → (in base, in tree), with a genotype named rather than written out."""
    shown = {}
    for key, pair in difference(tree, base).items():
        owner, is_inside, _ = key.partition(".genotype.")
        if not is_inside:
            shown[key] = pair
            continue
        before, after = (_genotype_name(side, f"{owner}.genotype") for side in (base, tree))
        if before == after:
            after = f"{after}, of the same name, edited"
        shown[f"{owner}.genotype"] = (before, after)
    return shown


def _genotype_name(tree: Tree, key: str) -> Any:
    return flatten(tree).get(f"{key}.name")
