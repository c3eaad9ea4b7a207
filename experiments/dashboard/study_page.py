"""A study's page: for each grid that has runs its table, counts, charts, claims and runs."""

from __future__ import annotations

from dataclasses import dataclass

from experiments import tables
from experiments.dashboard.charts import Chart, Mark, line_chart, scatter, strip_ticks
from experiments.dashboard.curves import mean_line
from experiments.dashboard.outlook import Outlook
from experiments.dashboard.pages import Content
from experiments.dashboard.view import JudgedClaim, Tally, View
from experiments.snapshot import Run
from experiments.statistics import Estimate
from experiments.study import Cell, PaperValue, Study
from experiments.study_grids import StudyGrid, slug
from experiments.tables import Report, Row


@dataclass(frozen=True)
class MetricCell:
    """A metric of a variant: measured, printed, difference, as numbers to sort by and as text."""

    metric: str
    measured: Estimate | None
    paper: PaperValue | None

    @property
    def text(self) -> str:
        """Mean and half of the interval."""
        return "" if self.measured is None else tables.with_interval(self.measured)

    @property
    def gap(self) -> float | None:
        """Measured less printed."""
        return self.measured.mean - self.paper.value if self.measured and self.paper else None


@dataclass(frozen=True)
class VariantRow:
    """A line of the study's table; `number` names it in the charts."""

    number: int
    row: Row
    metrics: tuple[MetricCell, ...]
    cells: list[tuple[Cell, Run | None]]


@dataclass(frozen=True)
class Section:
    """A grid on the page."""

    grid: StudyGrid
    report: Report
    tally: Tally
    outlook: Outlook | None
    rows: list[VariantRow]
    charts: list[Chart]
    curves: list[Chart]
    claims: list[JudgedClaim]
    caption: str
    noise: str


def study(view: View, study: Study) -> Content:
    """One study at every profile and on all data that it has runs of."""
    grids = view.grids.of_study(study, view.snapshot)
    return "study.html", {
        "study": study,
        "sections": [_section(view, grid) for grid in grids],
        "ticks": strip_ticks(),
        "has_runs": any(grid.has_runs(view.snapshot) for grid in grids),
    }


def _section(view: View, grid: StudyGrid) -> Section:
    report, by_variant = view.report(grid), view.by_variant(grid)
    rows = [
        VariantRow(
            number,
            row,
            tuple(MetricCell(m, row.measured.get(m), row.paper(m)) for m in grid.study.metrics),
            by_variant.get(row.variant.id, []),
        )
        for number, row in enumerate(report.rows, start=1)
    ]
    return Section(
        grid,
        report,
        view.tally(grid),
        view.outlook(grid),
        rows,
        _accuracy_charts(grid, report, rows),
        _learning_curves(view, report, rows),
        view.claims(grid),
        tables.caption(report).replace("`", ""),
        tables.noise_line(report),
    )


def _accuracy_charts(grid: StudyGrid, report: Report, rows: list[VariantRow]) -> list[Chart]:
    """Accuracy against multiply-adds: of the networks as trained here, and as printed.

    Apart, because neither the levels nor the sizes of the two can be compared.
    """
    metric = report.metric
    here = [
        _mark(grid, r, (r.row.small_macs_b or 0.0) * 1e3, r.row.measured[metric])
        for r in rows
        if metric in r.row.measured
    ]
    there = [
        _mark(grid, r, macs.value, Estimate(printed.value, None, 1))
        for r in rows
        if (macs := r.row.paper("macs_b")) and (printed := r.row.paper(metric))
    ]
    charts = []
    if here:
        title = f"Measured: {metric} against multiply-adds, {report.profile}"
        charts.append(scatter(title, here, "10⁶ multiply-adds, as trained", f"{metric} here"))
    if there:
        title = f"The paper: {metric} against multiply-adds"
        charts.append(scatter(title, there, "10⁹ multiply-adds, printed", f"{metric}, printed"))
    return charts


def _mark(grid: StudyGrid, row: VariantRow, x: float, y: Estimate) -> Mark:
    variant = row.row.variant
    href = f"#v-{grid.anchor}-{slug(variant.id)}"
    return Mark(str(row.number), x, y.mean, variant.label, y.half, href, row.number - 1)


def _learning_curves(view: View, report: Report, rows: list[VariantRow]) -> list[Chart]:
    """The loss, and the metric where it was looked at more than once."""
    charts = []
    for key, name in (("loss/total", "training loss"), (f"val/{report.metric}", report.metric)):
        lines = []
        for row in rows:
            histories = [view.history.of(run) for _, run in row.cells if run is not None]
            line = mean_line(row.row.variant.label, [h.get(key, []) for h in histories])
            lines += [line] if line is not None else []
        if any(len(line.points) > 1 for line in lines):
            charts.append(line_chart(name[0].upper() + name[1:], lines, "step", name))
    return charts
