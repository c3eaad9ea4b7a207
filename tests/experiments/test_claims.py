"""Verdicts: replicated, contradicted, inconclusive, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.claims import judge
from experiments.store import Result
from experiments.study import Claim
from spinenet.complexity import Complexity


def result(ap: float, seed: int, run: str) -> Result:
    counts = {"macs_b": 0.2, "params_m": 1.6, "num_classes": 11}
    times = {"seconds": 1.0, "train_seconds": 1.0, "images_per_second": 1.0, "images_seen": 1}
    facts = {"data_fingerprint": "", "recipe": {}, "environment": {}}
    return Result(run_id=run, name="", seed=seed, metrics={"AP": ap}, **counts, **times, **facts)


def results(**values: list[float]) -> dict[str, dict[int, Result]]:
    return {
        name: {s: result(ap, s, f"{name}{s}") for s, ap in enumerate(aps)}
        for name, aps in values.items()
    }


def claim(relation: str = "greater", **fields) -> Claim:
    return Claim(id="c", text="", a="a", b="b", relation=relation, source="", **fields)


NOISE = {"AP": 1.0}


def verdict(claims: list[Claim], found: dict, counts: dict | None = None) -> list[str]:
    return [j.verdict for j in judge(claims, found, counts or {}, NOISE)]


def test_a_clear_gain_is_replicated_and_a_clear_loss_contradicts():
    up = results(a=[45.0, 46.1, 45.2], b=[40.0, 41.0, 40.3])
    assert verdict([claim()], up) == ["replicated"]
    down = {"a": up["b"], "b": up["a"]}
    assert verdict([claim()], down) == ["contradicted"]


def test_a_gain_within_the_noise_is_inconclusive():
    assert verdict([claim()], results(a=[45, 41, 44], b=[42, 43, 42])) == ["inconclusive"]


def test_equivalence_needs_the_interval_inside_the_margin():
    close = results(a=[40.0, 41.0, 40.5, 40.2], b=[40.1, 40.9, 40.6, 40.2])
    assert verdict([claim("equal_within", margin=1.0)], close) == ["replicated"]
    far = results(a=[45.0, 46.0, 45.5, 45.1], b=[40.1, 40.9, 40.6, 40.2])
    assert verdict([claim("equal_within", margin=1.0)], far) == ["contradicted"]
    noisy = results(a=[42.0, 39.0, 41.5], b=[40.1, 40.9, 40.6])
    assert verdict([claim("equal_within", margin=1.0)], noisy) == ["inconclusive"]


def test_several_claims_judged_at_once_are_corrected_for():
    found = results(a=[42.0, 43.2, 42.1], b=[40.0, 40.1, 40.6])
    alone = judge([claim()], found, {}, NOISE)[0]
    among = judge([claim() for _ in range(5)], found, {}, NOISE)
    assert alone.p is not None
    assert alone.verdict == "replicated"
    assert among[0].verdict == "inconclusive"


def test_seeds_pair_and_unpaired_ones_are_left_out():
    found = results(a=[45.0, 46.0, 47.0], b=[40.0, 41.0])
    judged = judge([claim()], found, {}, NOISE)[0]
    assert (judged.effect, judged.seeds) == (5.0, 2)


def test_one_seed_has_no_verdict_and_none_is_not_run():
    one = judge([claim()], results(a=[45.0], b=[40.0]), {}, {})[0]
    assert (one.verdict, one.effect, one.low) == ("inconclusive", 5.0, None)
    assert verdict([claim()], results(a=[45.0])) == ["not run"]


def test_a_run_that_is_both_variants_judges_nothing():
    """A change from outside may make two variants one recipe."""
    found = results(a=[45.0, 46.0, 44.0])
    same = claim("equal_within", margin=1.0)
    one, other = judge([same, claim()], {"a": found["a"], "b": found["a"]}, {}, NOISE)
    for judged in (one, other):
        assert (judged.verdict, judged.p, judged.seeds) == ("inconclusive", None, 0)
        assert "one and the same run" in judged.reason
    clear = results(c=[45.0, 46.1, 45.2], d=[40.0, 41.0, 40.3])
    alone = judge([replace(claim(), a="c", b="d")], clear, {}, NOISE)[0]
    every = {"a": found["a"], "b": found["a"], **clear}
    among = judge([same, replace(claim(), id="d", a="c", b="d")], every, {}, NOISE)[1]
    assert among.p == alone.p


def test_counts_are_judged_without_runs():
    counts = {"a": Complexity(94.8, 26.0, {}), "b": Complexity(85.3, 28.5, {})}
    judged = judge([claim(metric="macs_b", paper=9.8)], {}, counts, {})[0]
    assert judged.verdict == "counted"
    assert judged.effect == pytest.approx(9.5)
    assert verdict([claim(metric="params_m")], {}, counts) == ["contradicted"]


def test_the_seeds_that_a_claim_still_needs_are_told():
    judged = judge([claim(paper=2.9)], results(a=[45.0, 43.0], b=[42.0, 43.0]), {}, {"AP": 1.5})[0]
    assert judged.seeds_needed is not None
    assert 3 < judged.seeds_needed < 12
