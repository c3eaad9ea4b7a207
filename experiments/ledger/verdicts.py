"""Claims of the paper judged from every store and every profile that has runs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from datamodules import training_samples
from experiments.claims import Judgement, judge
from experiments.grid import collect
from experiments.ledger.entries import Counts, Entry, Status
from experiments.ledger.printed import Sentence
from experiments.store import Store
from experiments.study import (
    COUNTED,
    MOST_SEEDS,
    Cell,
    Claim,
    Profile,
    Selection,
    Study,
    cells,
    needs_data,
)
from experiments.tables import noise

CellsOf = Callable[[Study, Profile], Sequence[Cell]]


@dataclass(frozen=True)
class Verdict:
    """A claim judged at one profile, whose runs see so many pictures each."""

    judgement: Judgement
    profile: str
    pictures: int

    @property
    def is_untested(self) -> bool:
        """Whether there were too few seeds for a test."""
        return self.judgement.p is None and self.judgement.claim.metric not in COUNTED


def all_cells(study: Study, profile: Profile) -> list[Cell]:
    """Every cell whose run is looked for; none where nobody has said on what data, as runs cannot
    be told without the data that they were made of.
    """
    selection = Selection(profile=profile, seeds=MOST_SEEDS)
    return [] if needs_data(study, selection) else cells(study, selection)


def verdicts(
    study: Study,
    profiles: Sequence[Profile],
    stores: Sequence[Store],
    counts: Counts,
    cells_of: CellsOf = all_cells,
) -> dict[str, list[Verdict]]:
    """Each claim's verdicts, that of the longest runs first, but those that one seed gave last; one
    that is counted has one, and one without runs none. `cells_of` is for a caller that has the
    cells already.
    """
    counted = [c for c in study.claims if c.metric in COUNTED]
    measured = [c for c in study.claims if c.metric not in COUNTED]
    of_study = {v: counts[f"{study.id}/{v}"] for c in counted for v in (c.a, c.b)}
    found = [Verdict(j, "", 0) for j in judge(counted, {}, of_study, {})]
    found += _judge_runs(study, measured, profiles, stores, cells_of)
    ordered = sorted(found, key=lambda one: (one.is_untested, -one.pictures))
    return {c.id: [v for v in ordered if v.judgement.claim.id == c.id] for c in study.claims}


def _judge_runs(
    study: Study,
    claims: Sequence[Claim],
    profiles: Sequence[Profile],
    stores: Sequence[Store],
    cells_of: CellsOf,
) -> Iterator[Verdict]:
    for profile in profiles if claims else ():
        grid = cells_of(study, profile)
        if not grid:
            continue
        for store in stores:
            results = collect(grid, store)
            deviations: dict[str, float | None] = {m: noise(results, m) for m in study.metrics}
            for judgement in judge(claims, results, {}, deviations) if results else ():
                if judgement.verdict != "not run":
                    yield Verdict(judgement, profile.id, _pictures(grid, judgement.claim))


def _pictures(grid: Sequence[Cell], claim: Claim) -> int:
    recipe = next(cell.recipe for cell in grid if cell.variant == claim.a)
    return training_samples(recipe.data.source, recipe.data.on_error) * recipe.train.epochs


def judge_claim(study: Study, claim: Claim, found: Sequence[Verdict]) -> Entry:
    """The ledger's line of one claim."""
    unit = {"macs_b": " B", "params_m": " M"}.get(claim.metric, f" {claim.metric}")
    printed = "" if claim.paper is None else f"{claim.paper:+.1f}{unit}"
    line = Entry(study.title, claim.text, claim.source, printed, "not attempted", study=study.id)
    if not found:
        detail = f"`spinenet reproduce {study.id}` trains what it needs"
        return replace(line, status="not attempted", found="", detail=detail)
    first, *others = found
    detail = "; ".join(f"{_where(v)}: {v.judgement.verdict}" for v in others)
    return replace(line, status=_status(first), found=_measured(first, unit), detail=detail)


def judge_sentence(sentence: Sentence, lines: Mapping[str, Entry]) -> Entry:
    """The ledger's line of what is said in words: what the claims that decide it amount to."""
    line = Entry(sentence.place, sentence.text, "sentence", sentence.printed, "not attempted")
    if not sentence.judged_by:
        status: Status = "cannot be settled" if sentence.beyond else "not attempted"
        return replace(line, status=status, found="", detail=sentence.beyond or sentence.open)
    parts = [lines[name] for name in sentence.judged_by]
    for status in ("contradicted", "inconclusive", "not attempted", "replicated", "counted"):
        if any(part.status == status for part in parts):
            break
    found = "; ".join(part.found for part in parts if part.found)
    return replace(line, status=status, found=found, detail=f"by {', '.join(sentence.judged_by)}")


def _status(verdict: Verdict) -> Status:
    judged = verdict.judgement.verdict
    assert judged != "not run"
    return judged


def _measured(verdict: Verdict, unit: str) -> str:
    j = verdict.judgement
    effect = f"{j.effect:+.1f}{unit}"
    if not verdict.profile:
        return f"{effect}, counted"
    interval = "" if j.low is None else f" ({j.low:+.1f} to {j.high:+.1f})"
    return f"{effect}{interval}, {_where(verdict)}"


def _where(verdict: Verdict) -> str:
    n = verdict.judgement.seeds
    return f"{verdict.profile}, {n} seed{'s' * (n > 1)}"
