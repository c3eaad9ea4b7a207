"""A model of the table: what the proxy would say of a network that nobody has trained.

A space has more networks than could ever be trained, so a table of a few hundred cannot be replayed
by look-up, as NAS-Bench-101 replays its 423,624 cells: a controller would hardly ever ask for one
of them. NAS-Bench-301 met the same with DARTS' space and fitted a model to a sample; so does this,
on the features of `spinenet.search.features`, with trees that average what they have seen and so
never promise more than the table holds.

A controller that searches long finds the mistakes of what rewards it. So the table is cut in half:
the model of one half rewards, and that of the other, which has not seen the networks that misled
the first, judges what is chosen. Mistakes that the features themselves make, both share. Each seed
has a model of its own, and two in turn have the same halves, exchanged. The error of a model is
that on the other half, of all its networks and of those that the model ranks highest, where a
search ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import RepeatedStratifiedKFold

from experiments.errors import UserError
from experiments.search.table import Table
from experiments.statistics import pooled_deviation
from spinenet.search.features import features
from spinenet.search.graph_hash import graph_hash
from spinenet.search.space import Choices, Space

LEAST = 50  # networks, fewer of which are no model
LEAST_INSIDE = 20  # of the space that is searched
HIGHEST = 1 / 3  # of the networks, as a model ranks them


@dataclass(frozen=True)
class Error:
    """How well AP is told of networks of the space that a model was not fitted to, the mean over
    models: the root mean square error, Kendall's rank correlation, and the share of the variance
    that is explained; and the first two of the third that the model ranks highest.
    """

    networks: int
    rmse: float
    kendall: float
    explained: float
    rmse_highest: float
    kendall_highest: float


class Surrogate:
    """The table's AP of any network of a space, without a run, for searchers of so many `seeds`.
    What a controller is told has the noise over seeds that the table measured.

    Raises UserError for a table that has too few networks, or none of the space with two seeds.
    """

    optimum: float | None = None

    def __init__(self, table: Table, space: Space, seeds: int) -> None:
        ap = table.ap("proxy")
        networks = [one for one in table.networks if one.hash in ap]
        inside = [one for one in networks if one.space == space.name]
        noise = pooled_deviation([list(ap[one.hash].values()) for one in inside])
        if len(networks) < LEAST or len(inside) < LEAST_INSIDE or noise is None:
            raise UserError(
                f"the table has {len(networks)} trained networks, {len(inside)} of the space "
                f"{space.name}, and a model needs {LEAST} and {LEAST_INSIDE}, some of these with "
                "two seeds; `spinenet search-table` goes on with it"
            )
        self.space, self.noise = space, noise
        inputs = np.stack([features(one.genotype) for one in networks])
        aps = np.array([np.mean(list(ap[one.hash].values())) for one in networks])
        here = np.array([one.space == space.name for one in networks])
        halves = RepeatedStratifiedKFold(n_splits=2, n_repeats=math.ceil(seeds / 2), random_state=0)
        errors = []
        self.models = []  # of halves: each is followed, or preceded, by that of the other half
        for fitted, left in halves.split(inputs, here):
            model = _model().fit(inputs[fitted], aps[fitted])
            others = left[here[left]]
            errors.append(_error(model.predict(inputs[others]), aps[others]))
            self.models.append(model)
        self.error = Error(len(inside), *(float(mean) for mean in np.mean(errors, axis=0)))

    def worths(self, rows: Sequence[Choices]) -> list[float]:
        """AP in percent, by the model of the half that rewards each seed."""
        inputs = np.stack([features(self.space.decode(row)) for row in rows])
        told = np.empty(len(rows))
        for place, model in enumerate(self.models[: len(rows)]):
            told[place :: len(self.models)] = model.predict(inputs[place :: len(self.models)])
        return [float(ap) for ap in told]

    def judged(self, row: Choices, seed: int) -> float:
        """AP in percent, by the model of the other half."""
        other = self.models[(seed % len(self.models)) ^ 1]
        return float(other.predict(features(self.space.decode(row))[None])[0])

    def identity(self, row: Choices) -> str:
        """The network, in whatever way it is written."""
        return graph_hash(self.space.decode(row))


def _model() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(200, min_samples_leaf=2, max_features=0.5, random_state=0)


def _error(found: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """The numbers of `Error`, of one model."""
    highest = np.argsort(found)[-math.ceil(len(found) * HIGHEST) :]
    explained = 1 - np.sum((found - truth) ** 2) / np.sum((truth - truth.mean()) ** 2)
    return (
        *_distance(found, truth),
        float(explained),
        *_distance(found[highest], truth[highest]),
    )


def _distance(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Root mean square error and Kendall's correlation."""
    rmse = np.sqrt(np.mean((found - truth) ** 2))
    return float(rmse), float(stats.kendalltau(found, truth).statistic)
