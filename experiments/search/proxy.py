"""What candidates are trained by: a recipe in a profile, in which each puts its own genotype."""

from __future__ import annotations

from dataclasses import replace

from experiments.compose import apply, from_tree, load_recipe
from experiments.errors import UserError
from experiments.recipe import Recipe
from experiments.study_file import load_profile
from spinenet.config import SpineNetConfig
from spinenet.genotype import Genotype


def base_recipe(recipe: str, profile: str) -> Recipe:
    """A recipe by name or file, sized by a profile. Raises UserError where its backbone has no
    genotype to be searched.
    """
    tree = load_recipe(recipe)
    made = from_tree(apply(tree, load_profile(profile).changes_for(tree)), origin=recipe)
    if not isinstance(made.model.backbone, SpineNetConfig):
        raise UserError(
            f"{recipe}: model.backbone.kind: {made.model.backbone.kind!r} has no genotype; "
            "search with a recipe of kind spinenet"
        )
    return made


def with_genotype(base: Recipe, genotype: Genotype, seed: int) -> Recipe:
    """The recipe of one candidate."""
    backbone = base.model.backbone
    assert isinstance(backbone, SpineNetConfig)
    model = replace(base.model, backbone=replace(backbone, genotype=genotype))
    return replace(base, model=model, seed=seed)
