"""The pages that are about everything: overview, runs, models, ledger. Each is a template's name
and what the template needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.dashboard.charts import strip_ticks
from experiments.dashboard.outlook import Outlook
from experiments.dashboard.view import Tally, View
from experiments.ledger.entries import Entry, Status
from experiments.ledger.report import MEANINGS, STATUSES
from experiments.study import COUNTED, Study
from experiments.study_grids import StudyGrid
from spinenet import genotype, zoo

Content = tuple[str, dict[str, Any]]  # template, what it is given


@dataclass(frozen=True)
class Begun:
    """A grid that has runs, on the overview; no outlook where all are complete."""

    study: Study
    grid: StudyGrid
    tally: Tally
    outlook: Outlook | None
    verdicts: Counter[str]


def overview(view: View) -> Content:
    """What holds so far, what goes on, what went wrong."""
    judged = [
        claim
        for grid in view.grids_with_runs
        if grid.profile.is_evidence
        for claim in view.claims(grid)
        if claim.judgement.claim.metric not in COUNTED and claim.judgement.verdict != "not run"
    ]
    rows = [(study, grid) for study, grids in view.studies() for grid in grids]
    begun = [
        Begun(
            study,
            grid,
            view.tally(grid),
            view.outlook(grid),
            Counter(c.judgement.verdict for c in view.claims(grid)),
        )
        for study, grid in rows
        if grid.has_runs(view.snapshot)
    ]
    return "overview.html", {
        "statuses": _statuses(view.ledger.entries),
        "entries": len(view.ledger.entries),
        "claims": judged,
        "ticks": strip_ticks(),
        "begun": begun,
        "untouched": [study for study, grid in rows if not grid.has_runs(view.snapshot)],
        "wrong": view.snapshot.in_state("failed", "damaged"),
        "damaged": view.damaged_searches,
        "searches": [(s, s.outlook(view.snapshot)) for s in view.searches.values()],
    }


def runs(view: View) -> Content:
    """Every run of the store."""
    rows = []
    for run in view.snapshot.by_name:
        result = run.record.result
        metric = next(iter(result.metrics.items()), None) if result else None
        grids, samples = [grid for grid, _ in view.uses(run)], view.samples(run)
        profiles = [g.profile.id for g in grids] + [s.config.profile for s, _ in samples]
        studies = dict.fromkeys(grid.study.id for grid in grids)
        rows.append((run, result, metric, next(iter(profiles), ""), list(studies), samples))
    states = Counter(str(run.state) for run in view.snapshot.by_name)
    return "runs.html", {"rows": rows, "states": states}


def ledger(view: View) -> Content:
    """Everything printed and what can be said of it: what is said in words first, then claims, then
    numbers. Each line leads to the study whose runs or networks decide it, where there is one.
    """
    made = view.ledger
    lines = [
        (said.place, said, source.judged_by[0] if source.judged_by else "")
        for said, source in zip(made.sentences, made.book.sentences, strict=True)
    ]
    lines += [(claim.place, claim, claim.study) for claim in made.claims]
    lines += [
        (entry.place, entry, number.variant)
        for entry, number in zip(made.numbers, made.book.numbers, strict=True)
    ]
    statuses = _statuses(made.entries)
    return "ledger.html", {
        "lines": [(place, entry, name.partition("/")[0]) for place, entry, name in lines],
        "statuses": statuses,
        "counts": {status: count for status, count, _ in statuses},
        "places": Counter(place for place, *_ in lines),
        "scores": len(view.basis.scores),
        "sources": made.book.sources,
    }


def _statuses(entries: Sequence[Entry]) -> list[tuple[Status, int, str]]:
    """Each status that some line has, how many have it, and what it means."""
    found = Counter(entry.status for entry in entries)
    return [(s, found[s], MEANINGS[s]) for s in STATUSES if found[s]]


def models(view: View) -> Content:
    """The paper's models and the genotypes they are made of."""
    return "models.html", {"models": list(zoo.MODELS), "genotypes": _genotypes_alone()}


def model_names() -> list[str]:
    """What has a page: the paper's models, then genotypes that are no model by themselves."""
    return [*zoo.MODELS, *_genotypes_alone()]


def _genotypes_alone() -> list[str]:
    return [name for name in genotype.shipped() if name not in zoo.MODELS]
