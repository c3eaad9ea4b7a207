"""What a command says before it trains: what the user's own data hold, how the anchors fit them,
and what is taken of the weights to start from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datamodules import ClassSource, DataSourceConfig, Source
from experiments.data_report import is_own, report_data
from experiments.recipe import Recipe
from experiments.starting import class_names, plan_start
from experiments.weights import read_weights


def briefing(
    recipes: Sequence[Recipe],
    opened: Mapping[DataSourceConfig, Source | ClassSource],
    weights: Path | None,
) -> Iterator[str]:
    """Lines for people on what `recipes` train with; `opened` has their data. Raises what would
    stop one of them later: data that do not fit together, weights of another architecture.
    """
    for config, source in opened.items():
        if is_own(config):
            yield from report_data(source, [r for r in recipes if r.data.source == config]).lines()
    if weights is not None:
        given = read_weights(weights)
        lines = [
            line
            for recipe in recipes
            for line in plan_start(
                given, recipe, class_names(opened[recipe.data.source], recipe)
            ).lines()
        ]
        yield from dict.fromkeys(lines)
