"""Statistics against scipy, against simulation, and against what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments import statistics


def test_the_interval_is_students():
    values = [40.1, 41.3, 39.2, 40.8]
    found = statistics.estimate(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_value_has_no_interval():
    found = statistics.estimate([3.0])
    assert (found.mean, found.half, found.low, found.high) == (3.0, None, None, None)


def test_the_paired_test_is_scipys():
    differences = [1.2, 0.4, 2.2, -0.3, 1.1]
    assert statistics.p_different(differences) == pytest.approx(
        stats.ttest_1samp(differences, 0).pvalue
    )


def test_equivalence_is_two_one_sided_tests():
    differences = [0.2, -0.1, 0.3, 0.1]
    upper = stats.ttest_1samp(differences, 1.0, alternative="less").pvalue
    lower = stats.ttest_1samp(differences, -1.0, alternative="greater").pvalue
    assert statistics.p_within(differences, 1.0) == pytest.approx(max(upper, lower))


def test_differences_without_spread_show_nothing():
    """Two seeds on fifty pictures may well agree by chance."""
    assert statistics.p_different([2.0, 2.0]) == 1.0
    assert statistics.p_within([0.5, 0.5], 1.0) == 1.0
    assert statistics.p_beyond([1.5, 1.5], 1.0) == 1.0


def test_holm_adjusts_stepwise_and_keeps_the_order():
    # Holm (1979) by hand: 4 x 0.01, 3 x 0.02, then max with 2 x 0.03, then 0.2.
    assert statistics.holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])


def test_the_pooled_deviation_weighs_groups_by_their_freedom():
    groups = [[1.0, 3.0], [2.0, 4.0, 6.0], [5.0]]
    assert statistics.pooled_deviation(groups) == pytest.approx(np.sqrt((2 + 8) / 3))
    assert statistics.pooled_deviation([[1.0], [2.0]]) is None


def test_the_detectable_difference_is_found_four_times_in_five():
    rng, seeds, deviation = np.random.default_rng(0), 4, 1.5
    effect = statistics.detectable(deviation, seeds)
    assert effect is not None
    trials = rng.normal(effect, deviation * np.sqrt(2), (4000, seeds))
    found = np.mean([statistics.p_different(t) < 0.05 for t in trials])
    assert found == pytest.approx(0.8, abs=0.02)


def test_seeds_to_detect_is_the_fewest_that_suffice():
    seeds = statistics.seeds_to_detect(2.9, 1.5)
    assert seeds is not None
    enough, short = (statistics.detectable(1.5, n) for n in (seeds, seeds - 1))
    assert enough is not None
    assert short is not None
    assert enough <= 2.9 < short


@pytest.mark.parametrize("effect", [0.0, -0.4])
def test_seeds_to_bound_suffice_in_simulation(effect):
    rng, margin, deviation = np.random.default_rng(1), 1.0, 0.8
    seeds = statistics.seeds_to_bound(margin, deviation, effect)
    assert seeds is not None
    trials = rng.normal(effect, deviation * np.sqrt(2), (3000, seeds))
    both = [(statistics.p_within(t, margin), statistics.p_beyond(t, margin)) for t in trials]
    shown = [2 * min(one) < 0.05 and one[0] < one[1] for one in both]  # as claims are judged
    assert 0.78 <= np.mean(shown) <= 0.9


def test_hopeless_effects_have_no_number_of_seeds():
    assert statistics.seeds_to_detect(0.001, 5.0) is None
    assert statistics.seeds_to_bound(1.0, 0.1, effect=1.2) is None
