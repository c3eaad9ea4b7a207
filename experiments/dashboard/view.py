"""What pages are made from: one snapshot of the store, and what follows from it.

Reports, the ledger, prices and searches are made when a page first asks for them, and kept until a
run's state changes. Only how far runs are comes anew with each snapshot.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from experiments.claims import Judgement
from experiments.dashboard.charts import Strip, strip
from experiments.dashboard.curves import History
from experiments.dashboard.evidence import Evidence
from experiments.dashboard.outlook import Outlook, Pace
from experiments.dashboard.searches import Found, Sample, Searches
from experiments.ledger.checkpoints import CheckpointScores
from experiments.ledger.report import Ledger, make_ledger
from experiments.snapshot import FileCache, Run, Snapshot
from experiments.study import COUNTED, Cell, Study
from experiments.study_grids import StudyGrid, StudyGrids
from experiments.tables import Report, make_report
from spinenet.complexity import Complexity


@dataclass(frozen=True)
class Basis:
    """What stays while runs come and go: the grids, what every network counts at full size, scores
    of imported checkpoints, what was read from files, and searches as far as they were replayed.
    """

    grids: StudyGrids
    counts: Mapping[str, Complexity]
    scores: Sequence[CheckpointScores]
    files: FileCache
    searches: Searches


@dataclass(frozen=True)
class Running:
    """A line of what goes on now."""

    run: Run
    label: str
    where: str


@dataclass(frozen=True)
class UnderWay:
    """A grid or a search at work, with the page and the place on it that shows it."""

    label: str
    href: str
    done: int
    total: int
    unit: str
    outlook: Outlook


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

    grid: StudyGrid
    judgement: Judgement
    strip: Strip | None


class View:
    """One look at everything."""

    def __init__(self, snapshot: Snapshot, basis: Basis) -> None:
        self.snapshot, self.basis, self.grids = snapshot, basis, basis.grids
        self.history, self.evidence = History(basis.files), Evidence(basis.files)
        self._reports: dict[int, Report] = {}
        self._paces: dict[int, Pace] = {}

    def report(self, grid: StudyGrid) -> Report:
        """The tables of a grid, from all seeds that were begun."""
        if id(grid) not in self._reports:
            study = grid.study
            counted = {v.id: self.basis.counts[f"{study.id}/{v.id}"] for v in study.published}
            cells = grid.asked(self.snapshot)
            self._reports[id(grid)] = make_report(study, cells, self.snapshot, counted)
        return self._reports[id(grid)]

    def outlook(self, grid: StudyGrid) -> Outlook | None:
        """How long a grid still takes; none for one that is complete."""
        if self.tally(grid).share == 1:
            return None
        if id(grid) not in self._paces:
            self._paces[id(grid)] = Pace(grid.asked(self.snapshot), self.snapshot.runs)
        return self._paces[id(grid)].outlook(self.snapshot.runs)

    @cached_property
    def ledger(self) -> Ledger:
        """Everything printed, judged by this store's runs and the scores at hand."""
        return make_ledger(
            [self.snapshot],
            self.basis.scores,
            counts=self.basis.counts,
            cells_of=self.grids.cells_of,
        )

    @cached_property
    def grids_with_runs(self) -> list[StudyGrid]:
        """Every grid of which some run was begun."""
        return [g for g in self.grids.all(self.snapshot) if g.has_runs(self.snapshot)]

    @cached_property
    def _searches(self) -> tuple[dict[str, Found], dict[str, str]]:
        return self.basis.searches.look(self.snapshot)

    @property
    def searches(self) -> dict[str, Found]:
        """Searches by the name of their page."""
        return self._searches[0]

    @property
    def damaged_searches(self) -> dict[str, str]:
        """Searches that cannot be read, and why."""
        return self._searches[1]

    def claims(self, grid: StudyGrid) -> list[JudgedClaim]:
        """A grid's claims, judged."""
        return [JudgedClaim(grid, j, _strip(j)) for j in self.report(grid).judgements]

    def tally(self, grid: StudyGrid) -> Tally:
        """How far a grid is."""
        runs = {cell.run_id for cell in grid.asked(self.snapshot)}
        known = self.snapshot.runs
        states = Counter(str(known[i].state) if i in known else "missing" for i in runs)
        return Tally(len(runs), states)

    def by_variant(self, grid: StudyGrid) -> dict[str, list[tuple[Cell, Run | None]]]:
        """Each variant's cells with their runs, where they were begun."""
        found: dict[str, list[tuple[Cell, Run | None]]] = {}
        for cell in grid.asked(self.snapshot):
            found.setdefault(cell.variant, []).append((cell, self.snapshot.runs.get(cell.run_id)))
        return found

    def uses(self, run: Run) -> list[tuple[StudyGrid, Cell]]:
        """The cells that a run fills."""
        return self.grids.uses(run.run_id, self.snapshot)

    def samples(self, run: Run) -> list[tuple[Found, Sample]]:
        """The searches that asked for a run, and as which sample first."""
        return self._samples_by_run.get(run.run_id, [])

    @cached_property
    def _samples_by_run(self) -> dict[str, list[tuple[Found, Sample]]]:
        found: dict[str, list[tuple[Found, Sample]]] = defaultdict(list)
        for search in self.searches.values():
            for sample in search.samples:
                if sample.run is not None and sample.first is None:
                    found[sample.run.run_id].append((search, sample))
        return found

    def running(self) -> list[Running]:
        """What is being trained now."""
        return [self._running(run) for run in self.snapshot.in_state("running")]

    def under_way(self) -> list[UnderWay]:
        """The grids and searches that what is being trained now belongs to; of grids that share a
        run, the one that has most of what runs.
        """
        running = self.snapshot.in_state("running")
        grids = {run.run_id: [grid for grid, _ in self.uses(run)] for run in running}
        votes = Counter(id(grid) for found in grids.values() for grid in found)
        chosen = [max(found, key=lambda g: votes[id(g)]) for found in grids.values() if found]
        searches = [search for run in running for search, _ in self.samples(run)]
        unique = {id(grid): grid for grid in chosen}.values()
        return [
            *(line for grid in unique if (line := self._grid_under_way(grid))),
            *(self._search_under_way(search) for search in dict.fromkeys(searches)),
        ]

    def studies(self) -> list[tuple[Study, list[StudyGrid]]]:
        """Each study with the grids that its page shows."""
        every = self.grids.studies.values()
        return [(study, self.grids.of_study(study, self.snapshot)) for study in every]

    def label(self, run: Run) -> str:
        """A run for people: its cell in the first study that has it, its sample in the first search
        that asked for it, else its name.
        """
        for grid, cell in self.uses(run):
            return f"{grid.study.variants[cell.variant].label}, seed {cell.seed}"
        for search, sample in self.samples(run):
            return f"{search.name}, sample {sample.candidate.number}"
        return run.name

    def _running(self, run: Run) -> Running:
        places = [f"{g.study.id}, {g.title}" for g, _ in self.uses(run)]
        places += [f"search {search.name}" for search, _ in self.samples(run)]
        first, *others = places or ["of no study"]
        where = f"{first} and {len(others)} more" if others else first
        return Running(run, self.label(run), where)

    def _grid_under_way(self, grid: StudyGrid) -> UnderWay | None:
        outlook, tally = self.outlook(grid), self.tally(grid)
        if outlook is None:
            return None
        href, label = f"study/{grid.path}", f"{grid.study.id}, {grid.title}"
        return UnderWay(label, href, tally.states.get("complete", 0), tally.total, "runs", outlook)

    def _search_under_way(self, search: Found) -> UnderWay:
        href, total = f"search/{search.path}.html", search.config.samples
        outlook, label = search.outlook(self.snapshot), f"search {search.name}"
        return UnderWay(label, href, len(search.tried), total, "samples", outlook)


def _strip(judgement: Judgement) -> Strip | None:
    claim = judgement.claim
    if judgement.effect is None or claim.metric in COUNTED:
        return None
    return strip(judgement.effect, judgement.low, judgement.high, claim.paper, claim.margin)
