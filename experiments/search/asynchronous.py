"""A search without a barrier: a result is told when it is there, and no worker waits for another.

What is asked for then depends on which run ends first, so the order of asking and telling is
written down before it is acted on. A search that was stopped is brought back by going through that
journal, which leads the controller to the same candidates; what was under way is run again, and
what ended unheard is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from experiments.errors import UserError
from experiments.search.candidates import Candidate, Search, settled
from experiments.search.config import SearchConfig, read_config, refuse_other_proxy
from experiments.store import Store
from experiments.study import Cell

JOURNAL = "journal.txt"
ASK, TELL = "ask", "tell"


class Journal:
    """A file with a line for each event: `ask 12` or `tell 9`, by the candidate's number."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self) -> list[tuple[str, int]]:
        """What has happened, in order; a last line that was not written whole has not.

        Raises UserError that names a line which is none of a journal.
        """
        found = []
        for place, line in enumerate(self._whole().splitlines(), start=1):
            event, _, number = line.partition(" ")
            if event not in (ASK, TELL) or not number.isdecimal():
                raise UserError(
                    f"{self.path}: line {place}: {line!r} is neither `{ASK} N` nor `{TELL} N`; "
                    "restore the file, or give the search another name"
                )
            found.append((event, int(number)))
        return found

    def mend(self) -> None:
        """Cut off a last line that was not written whole."""
        if self.path.is_file():
            os.truncate(self.path, len(self._whole()))

    def note(self, event: str, number: int) -> None:
        """Write one event down; it is on disk when this returns."""
        with self.path.open("a") as file:
            file.write(f"{event} {number}\n")
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> str:
        text = self.path.read_text(errors="replace") if self.path.is_file() else ""
        return text[: text.rfind("\n") + 1]


class AsynchronousSearch(Search):
    """A search that tells in the order in which runs end; `tried` grows in that order."""

    def __init__(self, config: SearchConfig, store: Store, journal: Journal) -> None:
        super().__init__(config, store)
        self.journal = journal
        self._followed = 0  # events of the journal

    def replay(self) -> None:
        """Go through the journal, on from where that ended before. Raises UserError where the store
        lacks a run that was told.
        """
        for event, number in islice(self.journal.events(), self._followed, None):
            if event == ASK and number == len(self.asked):
                self._ask()
            elif event == TELL and number < len(self.asked):
                self._tell_of(self.asked[number])
            else:
                raise UserError(
                    f"{self.journal.path}: {event} {number} cannot follow what stands before it; "
                    "restore the file, or give the search another name"
                )
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
            if len(self.asked) == self.config.samples:
                yield None
                continue
            self._note(ASK, len(self.asked))
            if (cell := self._ask()) is not None:
                yield cell

    def _note(self, event: str, number: int) -> None:
        """Write down what is done next."""
        self.journal.note(event, number)
        self._followed += 1

    def _tell_of_all_that_ended(self) -> None:
        told = {tried.candidate.number for tried in self.tried}
        for candidate in self.asked:
            if candidate.number not in told and settled(self.store, candidate.cell) is not None:
                self._note(TELL, candidate.number)
                self._tell_of(candidate)

    def _tell_of(self, candidate: Candidate) -> None:
        record = settled(self.store, candidate.cell)
        if record is None:
            raise UserError(
                f"{self.journal.path}: sample {candidate.number} was told, and its run is not in "
                f"{self.store.root}; name the folder of the search's runs by --runs"
            )
        self._tell(candidate, record)


def replayed(folder: Path, store: Store) -> Search:
    """The search in a folder, as far as the store has its runs. Raises UserError where there is
    none, and where its proxy has changed since.
    """
    made = make_search(read_config(folder), store, folder)
    refuse_other_proxy(folder, made.proxy.run_id)
    made.replay()
    return made


def make_search(config: SearchConfig, store: Store, folder: Path) -> Search:
    """A search in the mode that its settings ask for; `folder` is where its journal is kept."""
    if config.mode == "asynchronous":
        return AsynchronousSearch(config, store, Journal(folder / JOURNAL))
    return Search(config, store)
