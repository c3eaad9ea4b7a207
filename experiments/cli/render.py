"""Tables and progress for people at a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from experiments.durations import duration
from experiments.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.callbacks import Event
    from experiments.search.candidates import Search
    from experiments.study import Cell
    from experiments.tables import Report

console = Console()
progress_console = Console(stderr=True)
COLOURS = {
    "replicated": "green",
    "counted": "green",
    "contradicted": "red",
    "inconclusive": "yellow",
}
LONG = 500  # rows of a table that rich would take seconds to draw
GAP = 2  # columns of a terminal between those of a table
ENDS = ("done", "failed", "skipped", "stopped")
SPEED_OVER_S = 600.0  # runs end minutes apart; the time that is left is told from so long


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, prose: int = 0) -> Group:
    """A table with numbers to the right; the column `prose` wraps where the terminal is narrow, and
    it and the first are to the left. What is still too wide goes on below, after the first column
    again.
    """
    columns = list(zip(header, *rows, strict=True))
    is_long = len(rows) > LONG
    widths = [
        _least_width(column, wraps=i == prose and not is_long) for i, column in enumerate(columns)
    ]
    draw = _lines if is_long else _drawn
    parts = [draw(header, rows, widths, i, prose) for i in _fitting(widths, console.width)]
    return Group(*parts)


def _drawn(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    chosen: Sequence[int],
    prose: int,
) -> Table:
    """The columns `chosen` of a table."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for i in chosen:
        justify: JustifyMethod = "left" if i in (0, prose) else "right"
        wraps = i == prose
        least = min(widths[i], console.width) if wraps else None
        drawn.add_column(header[i], justify=justify, no_wrap=not wraps, min_width=least)
    for row in rows:
        drawn.add_row(*(row[i] for i in chosen))
    return drawn


def _lines(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    chosen: Sequence[int],
    prose: int,
) -> Text:
    """The same without colours or wrapping, some ten times faster."""

    def line(row: Sequence[str]) -> str:
        cells = []
        for i in chosen:
            text = _plain(row[i])
            padding = " " * (widths[i] - cell_len(text))
            cells.append(text + padding if i in (0, prose) else padding + text)
        return (" " * GAP).join(cells).rstrip()

    head = Text(line(header), style="bold")
    return Text("\n").join([head, *(Text(line(row)) for row in rows)])


def _plain(cell: str) -> str:
    """A cell without its markup."""
    return Text.from_markup(cell).plain if "[" in cell else cell


def _least_width(cells: Sequence[str], *, wraps: bool) -> int:
    """What a column needs: its longest cell, or word where it wraps."""
    texts = [_plain(cell) for cell in cells]
    if wraps:
        return max((cell_len(word) for text in texts for word in text.split()), default=0)
    return max(cell_len(text) for text in texts)


def _fitting(widths: Sequence[int], most: int) -> list[list[int]]:
    """Columns that fit beside the first one, table by table."""
    parts = [[0]]
    for i in range(1, len(widths)):
        columns = [*parts[-1], i]
        needed = sum(widths[k] for k in columns) + GAP * (len(columns) - 1)
        if needed > most and len(parts[-1]) > 1:
            parts.append([0, i])
        else:
            parts[-1].append(i)
    return parts


def print_report(report: Report) -> None:
    """A study's three tables."""
    from experiments import tables  # with scipy, which other commands' tables need not wait for

    console.print(f"\n[bold]{report.study.title}[/]")
    console.print(tables.caption(report), style="dim")
    for metric in report.study.metrics:
        console.print(table(*tables.metric_table(report, [metric])))
    for row in report.rows:
        if row.runs:
            told = f"{row.variant.label}: {' '.join(row.runs)}"
            console.print(told, style="dim", highlight=False, markup=False)
    console.print("\nMultiply-adds and parameters at the paper's own size", style="bold")
    console.print(table(*tables.count_table(report)))
    if report.judgements:
        header, rows = tables.claim_table(report)
        coloured = [[*r[:5], f"[{COLOURS.get(r[5], 'dim')}]{r[5]}[/]", *r[6:]] for r in rows]
        console.print()
        console.print(table(header, coloured))
        console.print(tables.noise_line(report), style="dim")
    stored = Path("results") / report.profile
    if not report.seeds and stored.is_dir() and stored != Path(report.folder):
        console.print(f"Stored runs are in {stored}: --runs {stored}", highlight=False)


def save_figure(figure: Figure, path: Path) -> None:
    """Draw to a file. Raises UserError for a kind of file that cannot be drawn, or a place that
    cannot be written.
    """
    from spinenet.drawing import save

    try:
        save(figure, path)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None


class GridProgress:
    """A bar for the whole grid and one per running cell; each result is printed as it arrives. The
    time left follows from `prices` in seconds by run id, where they are known. `elsewhere` are
    cells that other workers have.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        prices: Mapping[str, float] | None = None,
        elsewhere: Sequence[Cell] = (),
    ) -> None:
        self.prices, self.elsewhere = prices or {}, list(elsewhere)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=progress_console,
            speed_estimate_period=SPEED_OVER_S,
        )
        total = sum(self._price(cell.run_id) for cell in cells)
        self.total = self.progress.add_task("[bold]grid", total=total)
        self.done_before = 0.0
        self.ended: list[str] = []
        self.tasks: dict[str, TaskID] = {}
        self.started: dict[str, float] = {}
        self.scores: dict[str, str] = {}
        self.shares: dict[str, float] = {}
        self.failures: list[tuple[Cell, Any]] = []
        self.has_studies = len({c.study for c in cells}) > 1
        self.width = max((len(self._name(c)) for c in cells), default=0)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def _price(self, run_id: str) -> float:
        """What a run weighs in the bar of all."""
        return self.prices.get(run_id, 1.0)

    def _name(self, cell: Cell) -> str:
        return f"{cell.study}: {cell.label}" if self.has_studies else cell.label

    def watch(self, cell: Cell, event: Event) -> None:
        """Take one event of one cell."""
        getattr(self, f"_on_{event['kind']}")(cell, event)
        done = sum(share * self._price(run) for run, share in self.shares.items())
        self.progress.update(self.total, completed=done)
        if event["kind"] in ENDS:
            self._tell_left()

    def _tell_left(self) -> None:
        """A line for logs, which show no bar."""
        bar = self.progress.tasks[0]
        gained = bar.completed - self.done_before
        if progress_console.is_terminal or not bar.total or gained <= 0:
            return
        left = (bar.elapsed or 0.0) * (bar.total - bar.completed) / gained
        progress_console.print(f"{bar.percentage:.0f} %, about {duration(left)} left")

    def _on_start(self, cell: Cell, event: Event) -> None:
        self.elsewhere = [c for c in self.elsewhere if c.run_id != cell.run_id]
        self.started[cell.run_id] = time.monotonic()
        self.tasks[cell.run_id] = self.progress.add_task(
            self._name(cell).ljust(self.width), total=None
        )
        if not progress_console.is_terminal:
            progress_console.print(f"start {self._name(cell)}")

    def _on_step(self, cell: Cell, event: Event) -> None:
        self.progress.update(self.tasks[cell.run_id], completed=event["step"], total=event["total"])
        self.shares[cell.run_id] = event["step"] / event["total"]

    def _on_validation(self, cell: Cell, event: Event) -> None:
        self.scores[cell.run_id] = f"{event['metric']} {event['value']:5.1f}"

    def _on_done(self, cell: Cell, event: Event) -> None:
        self.ended.append(cell.run_id)
        shown = self.scores.get(cell.run_id, "")
        self._close(cell, f"[green]done[/]    {self._name(cell).ljust(self.width)}  {shown}")

    def _on_skipped(self, cell: Cell, event: Event) -> None:
        self.elsewhere.append(cell)
        self._close(cell, f"left     {self._name(cell).ljust(self.width)}  to another process")

    def _on_stopped(self, cell: Cell, event: Event) -> None:
        self._close(cell, f"stopped  {self._name(cell).ljust(self.width)}  its checkpoint is kept")

    def _on_failed(self, cell: Cell, event: Event) -> None:
        failure = event["failure"]
        self.failures.append((cell, failure))
        self._close(
            cell,
            f"[red]failed[/]  {self._name(cell).ljust(self.width)}  {escape(str(failure.message))}",
        )

    def _close(self, cell: Cell, line: str) -> None:
        self.progress.remove_task(self.tasks.pop(cell.run_id))
        self.shares[cell.run_id] = 1.0
        seconds = time.monotonic() - self.started[cell.run_id]
        progress_console.print(f"{line}  {seconds:5.0f} s", highlight=False)


class SearchProgress(GridProgress):
    """The same for a search, whose runs become known one by one; the bar counts samples."""

    def __init__(self, made: Search) -> None:
        super().__init__([])
        self.made = made
        self.width = len(f"{made.proxy.study}-01234567 seed 0")
        self.progress.update(self.total, total=made.config.samples)

    def __exit__(self, *exception: object) -> None:
        self._count()
        super().__exit__(*exception)

    def watch(self, cell: Cell, event: Event) -> None:
        """Take one event of one run."""
        getattr(self, f"_on_{event['kind']}")(cell, event)
        self._count()
        if event["kind"] in ENDS:
            self._tell_left()

    def _on_start(self, cell: Cell, event: Event) -> None:
        if not self.started:  # what an earlier session did took none of this one's time
            self.done_before = len(self.made.tried)
            self.progress.reset(self.total, completed=self.done_before)
        super()._on_start(cell, event)

    def _count(self) -> None:
        best = max((tried.reward for tried in self.made.tried), default=0.0)
        shown = f"[bold]search, best {self.made.config.reward} {best:.1f}"
        self.progress.update(self.total, description=shown, completed=len(self.made.tried))
