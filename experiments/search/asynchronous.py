"""A search without a barrier: a result is told when it is there, and no worker waits for another.

What is asked for then depends on which run ends first, so the order of asking and telling is
written down before it is acted on. A search that was stopped is brought back by going through that
journal, which leads the controller to the same candidates; what was under way is run again, and
what ended unheard is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from experiments.search.candidates import Candidate, RunMissingError, Search, settled
from experiments.search.config import SearchConfig, read_config, refuse_other_proxy
from experiments.search.journal import JOURNAL, Ask, Journal, Tell
from experiments.store import Store
from experiments.study import Cell


class AsynchronousSearch(Search):
    """A search that tells in the order in which runs end; `tried` grows in that order."""

    def __init__(self, config: SearchConfig, store: Store, journal: Journal) -> None:
        super().__init__(config, store, journal)
        self._followed = 0  # events of the journal

    def replay(self) -> None:
        """Go through the journal, on from where that ended before. Raises RunMissingError where the
        store lacks a run that was told, and UserError where the controller asks for another network
        than it did.
        """
        for event in islice(self.journal.events(), self._followed, None):
            if isinstance(event, Ask):
                candidate = self._draw()
                self._refuse_another(candidate, event.run_id)
                self._ask(candidate)
            else:
                self._tell_of(self.asked[event.number])
            self._followed += 1

    def cells(self) -> Iterator[Cell | None]:
        """Runs to do, as long as there are any; None when all are under way. First those that were
        asked for before and have not ended well.
        """
        self.journal.mend()
        if not self.asked:
            self.replay()
        yield from self.unsettled()
        while True:
            self._tell_of_all_that_ended()
            if self.is_complete:
                return
            if self._limit is not None and len(self.tried) == len(self.asked):
                raise self._limit
            if self._limit is not None or len(self.asked) == self.config.samples:
                yield None
                continue
            if (candidate := self._drawn()) is None:
                continue
            self._note_ask(candidate)
            self._followed += 1
            if (cell := self._ask(candidate)) is not None:
                yield cell

    def _tell_of_all_that_ended(self) -> None:
        told = {tried.candidate.number for tried in self.tried}
        for candidate in self.asked:
            if candidate.number not in told and settled(self.store, candidate.cell) is not None:
                self.journal.note(Tell(candidate.number))
                self._followed += 1
                self._tell_of(candidate)

    def _tell_of(self, candidate: Candidate) -> None:
        record = settled(self.store, candidate.cell)
        if record is None:
            raise RunMissingError(
                f"{self.journal.path}: sample {candidate.number} was told, and its run is not in "
                f"{self.store.root}; name the folder of the search's runs by --runs, or give the "
                "search another name to begin anew"
            )
        self._tell(candidate, record)


def opened(folder: Path, store: Store) -> Search:
    """The search in a folder, with nothing taken in yet. Raises UserError where there is none, and
    where its proxy has changed since.
    """
    made = make_search(read_config(folder), store, folder)
    refuse_other_proxy(folder, made.proxy.run_id)
    return made


def replayed(folder: Path, store: Store) -> Search:
    """The search in a folder, as far as the store has its runs. Raises UserError as `opened` does,
    and where it cannot be gone through again.
    """
    made = opened(folder, store)
    made.replay()
    return made


def make_search(config: SearchConfig, store: Store, folder: Path) -> Search:
    """A search in the mode that its settings ask for; `folder` is where its journal is kept."""
    kind = AsynchronousSearch if config.mode == "asynchronous" else Search
    return kind(config, store, Journal(folder / JOURNAL))
