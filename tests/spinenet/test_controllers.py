"""Controllers: reproducible, within their space, and better than chance where there is a way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from spinenet.search.controllers import Controller, RandomSearch, RegularisedEvolution, mutate
from spinenet.search.policy import DECISIONS, PolicyGradient, _Reader, _token
from spinenet.search.space import Choices, space, walked

MADE = {"random": RandomSearch, "evolution": RegularisedEvolution, "policy": PolicyGradient}
SEEDS, SAMPLES = range(5), 200


def likeness(target: Choices, row: Choices) -> float:
    """A synthetic objective with a known optimum of 1: the share of choices as in `target`."""
    return float(np.mean([a == b for a, b in zip(target, row, strict=True)]))


def rewards(kind: str, seed: int, samples: int) -> list[float]:
    """Likeness of each row that a controller asks for."""
    where = space("spinenet")
    target = where.sample(np.random.default_rng((99, seed)))
    controller: Controller = MADE[kind](where, seed=seed)
    found = []
    for number in range(samples):
        row = controller.ask(number)
        found.append(likeness(target, row))
        controller.tell(row, found[-1])
    return found


@pytest.mark.parametrize("kind", MADE)
def test_the_same_seed_and_rewards_ask_the_same(kind):
    where = space("r0-sp53")
    one, other = (MADE[kind](where, seed=3) for _ in range(2))
    for number in range(70):
        row = one.ask(number)
        assert other.ask(number) == row
        assert where.decode(row)
        for controller in (one, other):
            controller.tell(row, float(sum(row) % 7))


@pytest.mark.parametrize("kind", MADE)
def test_another_seed_asks_something_else(kind):
    where = space("fish")
    assert MADE[kind](where, seed=0).ask(0) != MADE[kind](where, seed=1).ask(0)
    assert MADE[kind](where, seed=0).ask(0) != MADE[kind](where, seed=0).ask(1)


@pytest.mark.parametrize("name", ["spinenet", "r23-sp30", "hourglass"])
def test_a_mutation_is_near_and_inside(name):
    where, rng = space(name), np.random.default_rng(0)
    row = where.sample(rng)
    distances = []
    for _ in range(300):
        changed = mutate(where, row, rng)
        assert where.decode(changed)
        distances.append(sum(a != b for a, b in zip(row, changed, strict=True)))
    assert min(distances) == 1
    assert max(distances) <= 5  # two places of an order, and two offsets that no longer fit
    assert len({mutate(where, row, rng) for _ in range(300)}) > 50


@pytest.mark.parametrize("kind", ["evolution", "policy"])
def test_learning_beats_chance_where_there_is_something_to_learn(kind):
    late = {
        name: [np.mean(rewards(name, seed, SAMPLES)[-50:]) for seed in SEEDS]
        for name in (kind, "random")
    }
    assert stats.ttest_rel(late[kind], late["random"], alternative="greater").pvalue < 0.001


def test_a_policy_draws_by_the_chances_that_it_learns_from():
    where = space("spinenet")
    policy = PolicyGradient(where, seed=1)
    for number in range(12):  # three steps, so that the chances are no longer even
        policy.tell(policy.ask(number), float(number % 5))
    rows = [policy.ask(number) for number in range(100, 104)]
    with torch.no_grad():
        learned, _ = policy._evaluated(rows)
    for row, logarithm in zip(rows, learned.tolist(), strict=True):
        reader, drawn = _Reader(policy.network), 0.0
        for decision, choice in walked(where, row):
            kind = DECISIONS.index(decision.kind)
            chances = reader.chances(kind, [_token(decision, o) for o in decision.options])
            drawn += float(np.log(chances[decision.options.index(choice)]))
            reader.read(kind, _token(decision, choice))
        assert drawn == pytest.approx(logarithm, rel=1e-4)
    even = sum(-np.log(len(decision.options)) for decision, _ in walked(where, rows[0]))
    assert learned[0] != pytest.approx(even, rel=1e-3)


def test_a_tournament_larger_than_the_population_is_refused():
    with pytest.raises(ValueError, match="tournament 9"):
        RegularisedEvolution(space("fish"), population=5, tournament=9)
