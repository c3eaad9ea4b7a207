"""Claims judged: the paper's sentences against the runs at hand.

A claim about AP is judged over seeds that both of its variants have. A claim about multiply-adds or
parameters is a matter of counting, at the paper's own size, and needs no run: where it holds it is
`counted`, so that `replicated` is said of trained runs only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments import statistics
from experiments.statistics import ALPHA
from experiments.store import Result
from experiments.study import COUNTED, Claim

if TYPE_CHECKING:
    from spinenet.counts import Complexity

Pairs = list[tuple[Result, Result]]  # of a claim's variants, seed by seed
Verdict = Literal["replicated", "counted", "contradicted", "inconclusive", "not run"]


@dataclass(frozen=True)
class Judgement:
    """A claim's effect, its 95 % interval, the p value corrected for all claims judged together,
    and the verdict.
    """

    claim: Claim
    verdict: Verdict
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    seeds: int = 0
    seeds_needed: int | None = None
    reason: str = ""


def judge(
    claims: Sequence[Claim],
    results: Mapping[str, Mapping[int, Result]],
    counts: Mapping[str, Complexity],
    deviations: Mapping[str, float | None],
) -> list[Judgement]:
    """Every claim's verdict, in order. `counts` are at the paper's size; `deviations` are the noise
    over seeds by metric.
    """
    pairs = {c.id: _pairs(c, results) for c in claims if c.metric not in COUNTED}
    differences = {c.id: _differences(c, pairs[c.id]) for c in claims if c.id in pairs}
    testable = [c for c in claims if len(differences.get(c.id, ())) > 1]
    adjusted = dict(
        zip(
            (c.id for c in testable),
            statistics.holm([_p(c, differences[c.id]) for c in testable]),
            strict=True,
        )
    )
    return [
        _judge_counts(c, counts)
        if c.metric in COUNTED
        else _judge_runs(
            c, pairs[c.id], differences[c.id], adjusted.get(c.id), deviations.get(c.metric)
        )
        for c in claims
    ]


def _pairs(claim: Claim, results: Mapping[str, Mapping[int, Result]]) -> Pairs:
    """The runs of both variants, seed by seed, that have the claim's metric."""
    a, b = results.get(claim.a, {}), results.get(claim.b, {})
    pairs = ((a[seed], b[seed]) for seed in sorted(a.keys() & b.keys()))
    return [pair for pair in pairs if all(claim.metric in run.metrics for run in pair)]


def _differences(claim: Claim, pairs: Pairs) -> list[float]:
    """What a has over b by seed, where the two are not one run, which has nothing over itself."""
    distinct = ((a, b) for a, b in pairs if a.run_id != b.run_id)
    return [a.metrics[claim.metric] - b.metrics[claim.metric] for a, b in distinct]


def _p(claim: Claim, differences: Sequence[float]) -> float:
    if claim.relation == "greater":
        return statistics.p_different(differences)
    # Either side may turn out to be shown; the smaller p is doubled for having looked at both.
    both = (
        statistics.p_within(differences, claim.margin),
        statistics.p_beyond(differences, claim.margin),
    )
    return min(1.0, 2 * min(both))


def _judge_runs(
    claim: Claim,
    pairs: Pairs,
    differences: Sequence[float],
    p: float | None,
    deviation: float | None,
) -> Judgement:
    if pairs and not differences:
        return Judgement(
            claim, "inconclusive", reason="both variants are one and the same run here"
        )
    needed = _seeds_needed(claim, deviation)
    if not differences:
        return Judgement(claim, "not run", seeds_needed=needed, reason="no seed has both variants")
    effect = statistics.estimate(differences)
    if p is None:
        return Judgement(
            claim,
            "inconclusive",
            effect.mean,
            seeds=effect.count,
            seeds_needed=needed,
            reason="one seed has no interval",
        )
    holds = effect.mean > 0 if claim.relation == "greater" else abs(effect.mean) < claim.margin
    verdict: Verdict = "inconclusive"
    if p < ALPHA:
        verdict = "replicated" if holds else "contradicted"
    return Judgement(claim, verdict, effect.mean, effect.low, effect.high, p, effect.count, needed)


def _judge_counts(claim: Claim, counts: Mapping[str, Complexity]) -> Judgement:
    effect = getattr(counts[claim.a], claim.metric) - getattr(counts[claim.b], claim.metric)
    holds = effect > 0 if claim.relation == "greater" else abs(effect) < claim.margin
    verdict: Verdict = "counted" if holds else "contradicted"
    return Judgement(claim, verdict, effect, effect, effect, reason="counted, not measured")


def _seeds_needed(claim: Claim, deviation: float | None) -> int | None:
    """Seeds that would settle the claim four times in five, if the paper's effect held here and no
    other claim was judged with it.
    """
    if not deviation:
        return None
    if claim.relation == "equal_within":
        return statistics.seeds_to_bound(claim.margin, deviation, claim.paper or 0.0)
    return statistics.seeds_to_detect(claim.paper, deviation) if claim.paper else None
