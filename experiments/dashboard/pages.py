"""The pages that are about everything: overview, runs, models, ledger. Each is a template's name
and what the template needs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from experiments.dashboard.charts import strip_ticks
from experiments.dashboard.view import View
from experiments.ledger.report import MEANINGS, STATUSES, by_place
from experiments.study import COUNTED
from spinenet import genotype, zoo

Content = tuple[str, dict[str, Any]]  # template, what it is given


def overview(view: View) -> Content:
    """What holds so far, what goes on, what went wrong."""
    statuses = Counter(entry.status for entry in view.ledger.entries)
    judged = [
        claim
        for grid in view.grids_with_runs
        for claim in view.claims(grid)
        if claim.judgement.claim.metric not in COUNTED and claim.judgement.verdict != "not run"
    ]
    rows = [(study, grid) for study, grids in view.studies() for grid in grids]
    begun = [
        (study, grid, view.tally(grid), Counter(c.judgement.verdict for c in view.claims(grid)))
        for study, grid in rows
        if grid.has_runs(view.snapshot)
    ]
    return "overview.html", {
        "statuses": [(s, statuses[s], MEANINGS[s]) for s in STATUSES if statuses[s]],
        "entries": len(view.ledger.entries),
        "claims": judged,
        "ticks": strip_ticks(),
        "begun": begun,
        "untouched": [study for study, grid in rows if not grid.has_runs(view.snapshot)],
        "wrong": view.snapshot.in_state("failed", "damaged"),
    }


def runs(view: View) -> Content:
    """Every run of the store."""
    rows = []
    for run in view.snapshot.by_name:
        result = run.record.result
        metric = next(iter(result.metrics.items()), None) if result else None
        studies = dict.fromkeys(grid.study.id for grid, _ in view.uses(run))
        rows.append((run, result, metric, list(studies)))
    return "runs.html", {"rows": rows}


def ledger(view: View) -> Content:
    """Everything printed and what can be said of it."""
    made = view.ledger
    groups = [("In words", list(made.sentences)), ("Claims that the studies judge", [*made.claims])]
    groups += [(place[0].upper() + place[1:], found) for place, found in by_place(made.numbers)]
    statuses = Counter(entry.status for entry in made.entries)
    return "ledger.html", {
        "groups": groups,
        "statuses": [(s, statuses[s], MEANINGS[s]) for s in STATUSES if statuses[s]],
        "sources": made.book.sources,
        "entries": len(made.entries),
    }


def models(view: View) -> Content:
    """The paper's models and the genotypes they are made of."""
    return "models.html", {"models": list(zoo.MODELS), "genotypes": _genotypes_alone()}


def model_names() -> list[str]:
    """What has a page: the paper's models, then genotypes that are no model by themselves."""
    return [*zoo.MODELS, *_genotypes_alone()]


def _genotypes_alone() -> list[str]:
    return [name for name in genotype.shipped() if name not in zoo.MODELS]
