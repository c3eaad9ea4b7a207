"""What pages are made from: one snapshot of the store, and what follows from it.

Reports and the ledger are made when a page first asks for them, and kept until a run's state
changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from experiments.claims import Judgement
from experiments.dashboard.charts import Strip, strip
from experiments.dashboard.curves import History
from experiments.dashboard.evidence import Evidence
from experiments.dashboard.grids import Grid, Grids
from experiments.dashboard.snapshot import FileCache, Run, Snapshot
from experiments.ledger.report import Ledger, make_ledger
from experiments.study import COUNTED, Cell, Study
from experiments.tables import Report, make_report
from spinenet.complexity import Complexity


@dataclass(frozen=True)
class Running:
    """A line of what goes on now."""

    run: Run
    label: str
    where: str


@dataclass(frozen=True)
class Tally:
    """How far a grid is: runs by state, of so many."""

    total: int
    states: Mapping[str, int]

    @property
    def share(self) -> float:
        """Complete, from 0 to 1."""
        return self.states.get("complete", 0) / self.total if self.total else 0.0


@dataclass(frozen=True)
class JudgedClaim:
    """A claim judged at a grid, with its drawing where there is an effect."""

    grid: Grid
    judgement: Judgement
    strip: Strip | None


class View:
    """One look at everything."""

    def __init__(
        self, snapshot: Snapshot, grids: Grids, counts: Mapping[str, Complexity], files: FileCache
    ) -> None:
        self.snapshot, self.grids, self.counts = snapshot, grids, counts
        self.history, self.evidence = History(files), Evidence(files)
        self._reports: dict[int, Report] = {}

    def report(self, grid: Grid) -> Report:
        """The tables of a grid, from all seeds that were begun."""
        if id(grid) not in self._reports:
            study = grid.study
            counted = {v.id: self.counts[f"{study.id}/{v.id}"] for v in study.published}
            cells = grid.asked(self.snapshot)
            self._reports[id(grid)] = make_report(study, cells, self.snapshot, counted)
        return self._reports[id(grid)]

    @cached_property
    def ledger(self) -> Ledger:
        """Everything printed, judged by this store's runs."""
        return make_ledger([self.snapshot], counts=self.counts, cells_of=self.grids.cells_of)

    @cached_property
    def grids_with_runs(self) -> list[Grid]:
        """Every grid of which some run was begun."""
        return [g for g in self.grids.all(self.snapshot) if g.has_runs(self.snapshot)]

    def claims(self, grid: Grid) -> list[JudgedClaim]:
        """A grid's claims, judged."""
        return [JudgedClaim(grid, j, _strip(j)) for j in self.report(grid).judgements]

    def tally(self, grid: Grid) -> Tally:
        """How far a grid is."""
        runs = {cell.run_id for cell in grid.asked(self.snapshot)}
        known = self.snapshot.runs
        states = Counter(str(known[i].state) if i in known else "missing" for i in runs)
        return Tally(len(runs), states)

    def by_variant(self, grid: Grid) -> dict[str, list[tuple[Cell, Run | None]]]:
        """Each variant's cells with their runs, where they were begun."""
        found: dict[str, list[tuple[Cell, Run | None]]] = {}
        for cell in grid.asked(self.snapshot):
            found.setdefault(cell.variant, []).append((cell, self.snapshot.runs.get(cell.run_id)))
        return found

    def uses(self, run: Run) -> list[tuple[Grid, Cell]]:
        """The cells that a run fills."""
        return self.grids.uses(run.run_id, self.snapshot)

    def running(self) -> list[Running]:
        """What is being trained now."""
        return [self._running(run) for run in self.snapshot.in_state("running")]

    def studies(self) -> list[tuple[Study, list[Grid]]]:
        """Each study with the grids that its page shows."""
        every = self.grids.studies.values()
        return [(study, self.grids.of_study(study, self.snapshot)) for study in every]

    def label(self, run: Run) -> str:
        """A run for people: its cell in the first study that has it, else its name."""
        for grid, cell in self.uses(run):
            return f"{grid.study.variants[cell.variant].label}, seed {cell.seed}"
        return run.name

    def _running(self, run: Run) -> Running:
        first, *others = [f"{g.study.id}, {g.title}" for g, _ in self.uses(run)] or ["of no study"]
        where = f"{first} and {len(others)} more" if others else first
        return Running(run, self.label(run), where)


def _strip(judgement: Judgement) -> Strip | None:
    claim = judgement.claim
    if judgement.effect is None or claim.metric in COUNTED:
        return None
    return strip(judgement.effect, judgement.low, judgement.high, claim.paper, claim.margin)
