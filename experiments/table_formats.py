"""A study's tables for other programs: LaTeX to include in a paper, CSV to read into anything, JSON
with all that is known.

LaTeX has the same three tables as the terminal. CSV has a line per number, so that nothing has to
be taken apart again: what was measured with its interval and runs, what was counted, what is
printed and where. Claims are in the JSON alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from experiments.claims import Judgement
from experiments.study import COUNTED
from experiments.tables import Report, Row, caption, claim_table, count_table, metric_table

TABLE_VERSION = 2  # of the JSON; since 2 a claim that holds by counting is `counted`
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


def to_mapping(report: Report) -> dict[str, Any]:
    """The report as what becomes JSON, schema `table_version`."""
    return {
        "table_version": TABLE_VERSION,
        "study": report.study.id,
        "title": report.study.title,
        "profile": report.profile,
        "data": report.data,
        "seeds": report.seeds,
        "rows": [_row_json(row) for row in report.rows],
        "claims": [_claim_json(j) for j in report.judgements],
        "noise": {
            "metric": report.metric,
            "deviation": report.deviation,
            "detectable": report.detectable(report.seeds),
        },
        "hours": report.hours,
        "machines": dict(report.machines),
        "other_runs": report.other_runs,
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "variant": row.variant.id,
        "title": row.variant.label,
        "measured": {
            metric: {**asdict(found), "low": found.low, "high": found.high}
            for metric, found in row.measured.items()
        },
        "runs": list(row.runs),
        "deviates": list(row.deviates),
        "AP_by_octave": dict(row.octaves),
        "paper": {metric: asdict(value) for metric, value in row.variant.paper.items()},
        "unpublished": row.variant.unpublished,
        "full_size": {
            "macs_b": getattr(row.full, "macs_b", None),
            "params_m": getattr(row.full, "params_m", None),
        },
        "as_trained": {"macs_b": row.small_macs_b, "params_m": row.small_params_m},
    }


def _claim_json(judgement: Judgement) -> dict[str, Any]:
    body = asdict(judgement)
    return {**body.pop("claim"), **body}
