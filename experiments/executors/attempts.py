"""One attempt at a run, as whoever started it sees it end."""

from __future__ import annotations

from experiments.snapshot import stamp_of
from experiments.store import Failure, Store, read_failure, write_failure
from experiments.study import Cell


class Attempt:
    """An attempt that is about to start; a failure that is in the run's folder by now is an earlier
    one's.
    """

    def __init__(self, cell: Cell, store: Store) -> None:
        self.folder = store.folder(cell.run_id, cell.recipe.name)
        self._file = self.folder / "failure.json"
        self._earlier = stamp_of(self._file)

    def failure(self, unless_told: Failure) -> Failure:
        """Why it failed, by what the run has written; `unless_told`, which is then written, where
        it died without a word.
        """
        told = read_failure(self.folder) if stamp_of(self._file) != self._earlier else None
        if told is None:
            write_failure(self.folder, unless_told)
        return told or unless_told
