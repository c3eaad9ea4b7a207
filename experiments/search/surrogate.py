"""A model of the table: what the proxy would say of a network that nobody has trained.

A space has more networks than could ever be trained, so a table of a few hundred cannot be replayed
by look-up, as NAS-Bench-101 replays its 423,624 cells: a controller would hardly ever ask for one
of them. NAS-Bench-301 met the same with DARTS' space and fitted a model to a sample; so does this,
on the features of `spinenet.search.features`, with trees that average what they have seen and so
never promise more than the table holds. Its error is that on networks that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict

from experiments.errors import UserError
from experiments.search.sampling import Network
from experiments.search.table import Table
from experiments.statistics import pooled_deviation
from spinenet.search.features import features
from spinenet.search.space import Choices, Space

FOLDS = 10
LEAST = 5 * FOLDS  # networks, fewer of which are no model


@dataclass(frozen=True)
class Error:
    """How well AP is told of networks that the model was not fitted to: the root mean square error,
    Kendall's rank correlation, and the share of the variance that is explained.
    """

    networks: int
    rmse: float
    kendall: float
    explained: float


class Surrogate:
    """The table's AP of any network of a space, without a run. What a controller is told has the
    noise over seeds that the table measured.

    Raises UserError for a table that has too few networks, or none of the space with two seeds.
    """

    optimum: float | None = None

    def __init__(self, table: Table, space: Space) -> None:
        ap = table.ap("proxy")
        networks = [one for one in table.networks if one.hash in ap]
        inside = [one for one in networks if one.space == space.name]
        noise = pooled_deviation([list(ap[one.hash].values()) for one in inside])
        if len(networks) < LEAST or noise is None:
            raise UserError(
                f"the table has {len(networks)} trained networks, and a model needs {LEAST}, some "
                f"of the space {space.name} with two seeds; `spinenet search-table` goes on with it"
            )
        self.space, self.noise = space, noise
        inputs = np.stack([features(one.genotype) for one in networks])
        aps = np.array([np.mean(list(ap[one.hash].values())) for one in networks])
        self.error = _error(inputs, aps, networks, space)
        self.model = _model().fit(inputs, aps)

    def worths(self, rows: Sequence[Choices]) -> list[float]:
        """AP in percent, as the model has it."""
        inputs = np.stack([features(self.space.decode(row)) for row in rows])
        return [float(ap) for ap in self.model.predict(inputs)]


def _model() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(200, min_samples_leaf=2, max_features=0.5, random_state=0)


def _error(inputs: np.ndarray, aps: np.ndarray, networks: Sequence[Network], space: Space) -> Error:
    """By cross-validation over all networks, judged on those of the space."""
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    guessed = cross_val_predict(_model(), inputs, aps, cv=folds)
    inside = np.array([one.space == space.name for one in networks])
    if inside.sum() < 2:
        raise UserError(
            f"the table has {inside.sum()} trained networks of the space {space.name}; go on with "
            "it, or compare in another space"
        )
    found, truth = guessed[inside], aps[inside]
    return Error(
        networks=int(inside.sum()),
        rmse=float(np.sqrt(np.mean((found - truth) ** 2))),
        kendall=float(stats.kendalltau(found, truth).statistic),
        explained=float(1 - np.sum((found - truth) ** 2) / np.sum((truth - truth.mean()) ** 2)),
    )
