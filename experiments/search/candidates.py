"""The candidates of a search, one after the other, and what each is worth.

A search has no state of its own. The controller is asked in order and told in order, from what the
store holds; where the store lacks a run, that run is what has to be done next. So a search that was
killed goes on as if it had not been, and one whose runs are all there is replayed in moments. The
journal has what was asked for, so that a controller which has changed since is found out.
`experiments.search.asynchronous` tells in the order in which runs end instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from experiments.counting import as_trained, counts
from experiments.errors import UserError
from experiments.recipe import Recipe, open_data_of, run_id
from experiments.search.config import SearchConfig
from experiments.search.journal import Ask, Journal
from experiments.search.proxy import base_recipe, with_genotype
from experiments.store import Record, Result, Store
from experiments.study import Cell
from spinenet.genotype import Genotype
from spinenet.search.graph_hash import graph_hash
from spinenet.search.space import Choices

LOST = 0.0  # what a network is worth whose loss was not finite
MOST_ATTEMPTS = 1000  # to draw a network under the limit


class LimitError(UserError):
    """The controller draws no network under the limit: here the search ends."""


class RunMissingError(UserError):
    """The store lacks runs that the search has had."""


@dataclass(frozen=True)
class Candidate:
    """One network that a controller asked for, and its run; `hash` is that of its graph."""

    number: int
    choices: Choices
    genotype: Genotype
    hash: str
    cell: Cell


@dataclass(frozen=True)
class Tried:
    """A candidate with its reward, and its result where it was trained."""

    candidate: Candidate
    reward: float
    result: Result | None


class Search:
    """A search on a store. `tried` grows as results come in, in the order of asking."""

    def __init__(self, config: SearchConfig, store: Store, journal: Journal) -> None:
        self.config, self.store, self.journal = config, store, journal
        self.space, self.controller = config.searched_space(), config.make_controller()
        self.base = base_recipe(config.recipe, config.profile)
        self.fingerprint = open_data_of(self.base).fingerprint
        self.asked: list[Candidate] = []
        self.tried: list[Tried] = []
        self._cells: dict[str, Cell] = {}  # by graph hash
        self._limit: LimitError | None = None  # met: nothing more is drawn

    @property
    def proxy(self) -> Cell:
        """A run of the proxy's own network, for what all candidates share: data and threads."""
        return self._cell(self.base, "proxy")

    def replay(self) -> None:
        """Take in what the store has, as far as it goes without a run that it lacks, or to where
        the controller draws no network under the limit. Nothing is written.

        Raises UserError where the controller asks for another network than it did, and
        RunMissingError where the store is not the one that the search's runs are in.
        """
        with suppress(LimitError):
            for cell in self._steps(is_noted=False):
                if cell is None:
                    return

    @property
    def is_complete(self) -> bool:
        """Whether every sample has its reward."""
        return len(self.tried) == self.config.samples

    def cells(self) -> Iterator[Cell | None]:
        """Runs to do, in order; None when none can be known before another has ended. Asked for
        again, it begins with the runs that it gave before and that have not ended well.

        A network that was asked for before, in whatever way it was written, is not run again. What
        is asked for is in the journal before it is given. Raises UserError and RunMissingError as
        `replay` does, and LimitError where the controller draws no network under the limit, once
        all that it drew before have ended.
        """
        self.journal.mend()
        for candidate in self.asked[len(self.journal.runs()) :]:
            self._note_ask(candidate)
        yield from self._steps(is_noted=True)

    def _steps(self, is_noted: bool) -> Iterator[Cell | None]:
        before = self.journal.runs()
        self._refuse_another_store(before)
        yield from self.unsettled()
        while not self.is_complete:
            number, is_over = len(self.asked), self._limit is not None
            is_over |= number == self.config.samples
            due = number if is_over else number - self.config.lag + 1
            self._take_in(due)
            if len(self.tried) < due:
                yield None
                continue
            if self._limit is not None:
                raise self._limit
            if is_over:
                return
            if (candidate := self._drawn()) is None:
                continue
            if number < len(before):
                self._refuse_another(candidate, before[number])
            elif is_noted:
                self._note_ask(candidate)
            if (cell := self._ask(candidate)) is not None:
                yield cell

    def _take_in(self, due: int) -> None:
        """Tell the controller of the first `due` candidates in order, as far as they are known."""
        for candidate in self.asked[len(self.tried) : max(due, 0)]:
            record = settled(self.store, candidate.cell)
            if record is None:
                return
            self._tell(candidate, record)

    def _tell(self, candidate: Candidate, record: Record) -> None:
        reward = self.worth(record)
        self.controller.tell(candidate.choices, reward)
        self.tried.append(Tried(candidate, reward, record.result))

    def worth(self, record: Record) -> float:
        """The reward of a run that has ended."""
        return LOST if record.result is None else record.result.metrics[self.config.reward]

    def run_of(self, genotype: Genotype, seed: int) -> Cell:
        """A network's run by the proxy."""
        return self._cell(with_genotype(self.base, genotype, seed), genotype.name)

    def unsettled(self) -> list[Cell]:
        """The runs of candidates that were asked for and whose worth is not known."""
        told = {tried.candidate.number for tried in self.tried}
        runs = {c.cell.run_id: c.cell for c in self.asked if c.number not in told}
        return [cell for cell in runs.values() if settled(self.store, cell) is None]

    def _drawn(self) -> Candidate | None:
        """The candidate that the controller asks for next; None where the limit is met, after which
        nothing more is drawn.
        """
        try:
            return self._draw()
        except LimitError as error:
            self._limit = error
            return None

    def _draw(self) -> Candidate:
        """The candidate that the controller asks for next."""
        number = len(self.asked)
        choices, name, genotype, recipe = self._affordable(number)
        cell = self._cells.get(name) or self._cell(recipe, genotype.name)
        return Candidate(number, choices, genotype, name, cell)

    def _note_ask(self, candidate: Candidate) -> None:
        self.journal.note(Ask(candidate.number, candidate.cell.run_id))

    def _refuse_another_store(self, before: list[str]) -> None:
        """Raise RunMissingError where so many runs were asked for that some had ended, and the
        store has none of them.
        """
        if len(before) <= self.config.lag:
            return
        if not any(record.is_settled for record in self.store.records(before).values()):
            raise RunMissingError(
                f"{self.journal.path}: {len(before)} samples were asked for, and {self.store.root} "
                "has the result of none; name the folder of the search's runs by --runs, or give "
                "the search another name to begin anew"
            )

    def _refuse_another(self, candidate: Candidate, before: str) -> None:
        """Raise UserError where a candidate's run is not that which was asked for before."""
        if (now := candidate.cell.run_id) != before:
            raise UserError(
                f"{self.journal.path}: sample {candidate.number} was run {before}, and "
                f"{self.config.controller} now asks for {now}: the code of the controller or the "
                "space has changed since, or a library under it; go on with those of before, or "
                "give the search another name"
            )

    def _ask(self, candidate: Candidate) -> Cell | None:
        """Take a candidate as asked for; its run, if nobody has asked for that before and it has
        yet to be made.
        """
        is_new = candidate.hash not in self._cells
        self._cells[candidate.hash] = candidate.cell
        self.asked.append(candidate)
        return candidate.cell if is_new and settled(self.store, candidate.cell) is None else None

    def _affordable(self, number: int) -> tuple[Choices, str, Genotype, Recipe]:
        """The first network under the limit that the controller draws for a candidate, with its
        graph hash. Raises LimitError where it draws none.
        """
        least, limit = math.inf, self.config.macs_m
        for attempt in range(MOST_ATTEMPTS):
            choices = self.controller.ask(number, attempt)
            genotype = self.space.decode(choices)
            name = graph_hash(genotype)
            genotype = replace(genotype, name=f"{self.config.space}-{name[:8]}")
            recipe = with_genotype(self.base, genotype, self.config.run_seed)
            if limit is None or (macs_m := counts(*as_trained(recipe)).macs_b * 1e3) <= limit:
                return choices, name, genotype, recipe
            least = min(least, macs_m)
        raise LimitError(
            f"macs_m is {limit:g}, and of {MOST_ATTEMPTS} networks drawn for sample {number} the "
            f"smallest has {least:.4g}; raise the limit, in another search"
        )

    def _cell(self, recipe: Recipe, name: str) -> Cell:
        identity = run_id(recipe, self.fingerprint)
        return Cell(self.config.space, self.config.profile, name, recipe.seed, recipe, identity)


def settled(store: Store, cell: Cell) -> Record | None:
    """What the store has of a run, if the worth of its network is known by it."""
    record = store.records([cell.run_id])[cell.run_id]
    return record if record.is_settled else None
