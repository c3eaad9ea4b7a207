"""A study's tables for other programs: LaTeX to include in a paper, CSV to read into anything.

LaTeX has the same three tables as the terminal. CSV has a line per number, so that nothing has to
be taken apart again: what was measured with its interval and runs, what was counted, what is
printed and where. Claims are in the JSON.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.study import COUNTED
from experiments.tables import Report, Row, caption, claim_table, count_table, metric_table

COLUMNS = ["study", "profile", "data", "variant", "title", "metric", "size", "value", "low", "high"]
COLUMNS += ["seeds", "runs", "deviates", "paper", "source"]
SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"$<$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\rightarrow$"}
)


def to_latex(report: Report) -> str:
    """Three tables for LaTeX with the package booktabs."""
    tables = [metric_table(report), count_table(report)]
    tables += [claim_table(report)] if report.judgements else []
    head = [f"% {report.study.title}", f"% {caption(report)}"]
    head += [f"% {row.variant.id}: {' '.join(row.runs)}" for row in report.rows if row.runs]
    return "\n\n".join(["\n".join(head), *(_tabular(*table) for table in tables)])


def _tabular(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _line(header)]
    lines += [r"\midrule", *map(_line, rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(SPECIAL) for cell in cells) + r" \\"


def to_csv(reports: Sequence[Report]) -> str:
    """One CSV of all the reports' numbers, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line for report in reports for row in report.rows for line in _of(report, row))
    return text.getvalue()


def _of(report: Report, row: Row) -> Iterator[dict[str, Any]]:
    """A line per metric measured, and per count at the sizes `trained` and `full`."""
    start = {"study": report.study.id, "profile": report.profile, "data": report.data}
    start |= {"variant": row.variant.id, "title": row.variant.label}
    start["deviates"] = " ".join(row.deviates)
    for metric in report.study.metrics:
        line = start | {"metric": metric, "size": "trained"} | _printed(row, metric)
        if (found := row.measured.get(metric)) is not None:
            line |= {"value": found.mean, "low": found.low, "high": found.high}
            line |= {"seeds": found.count, "runs": " ".join(row.runs)}
        yield line
    for metric in COUNTED:
        small, full = getattr(row, f"small_{metric}"), getattr(row.full, metric, None)
        yield start | {"metric": metric, "size": "trained", "value": small}
        yield start | {"metric": metric, "size": "full", "value": full} | _printed(row, metric)


def _printed(row: Row, metric: str) -> dict[str, Any]:
    value = row.paper(metric)
    return {} if value is None else {"paper": value.value, "source": value.source}
