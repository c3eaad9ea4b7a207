"""Two runs beside each other: what came out, how they learned, and how they were made.

There is such a page for any two complete runs of a served site; an export has none, as it would
have to have all of them.
"""

from __future__ import annotations

import re

from experiments.comparing import compare_runs
from experiments.dashboard.charts import Chart, Line, line_chart
from experiments.dashboard.pages import Content
from experiments.dashboard.run_page import CURVES, genotype_of
from experiments.dashboard.view import View
from experiments.snapshot import Run
from experiments.store import Result
from spinenet.genotype import Genotype

PAIR = re.compile(r"(?P<a>[0-9a-f]{12})-(?P<b>[0-9a-f]{12})")


def pair(view: View, name: str) -> tuple[Run, Run] | None:
    """The two runs of a page's name, if both are complete."""
    found = PAIR.fullmatch(name)
    runs = [view.snapshot.runs.get(run_id) for run_id in found.groups()] if found else []
    complete = [run for run in runs if run is not None and run.record.result is not None]
    return (complete[0], complete[1]) if len(complete) == 2 else None


def compare(view: View, a: Run, b: Run) -> Content:
    """Two complete runs."""
    first, second = _result(a), _result(b)
    compared = compare_runs(first, second)
    return "compare.html", {
        "runs": [(letter, run, view.label(run)) for letter, run in (("A", a), ("B", b))],
        "lines": compared.lines,
        "curves": _curves(view, a, b),
        "changed": compared.recipe,
        "drawing": f"{a.run_id}-{b.run_id}.svg" if networks(a, b) else "",
    }


def networks(a: Run, b: Run) -> tuple[Genotype, Genotype] | None:
    """The genotypes of two runs, if they have two."""
    first, second = genotype_of(_result(a)), genotype_of(_result(b))
    if first is None or second is None or first.content() == second.content():
        return None
    return first, second


def _curves(view: View, a: Run, b: Run) -> list[Chart]:
    charts = []
    for key, name in CURVES:
        found = [(run, view.history.of(run).get(key, [])) for run in (a, b)]
        lines = [
            Line(f"{letter}, {view.label(run)}", points)
            for letter, (run, points) in zip("AB", found, strict=True)
            if points
        ]
        if any(len(line.points) > 1 for line in lines):
            charts.append(line_chart(f"{name} over training", lines, "step", name))
    return charts


def _result(run: Run) -> Result:
    assert run.record.result is not None
    return run.record.result
