"""What a search has asked for and was told, in order, in a file beside its settings.

By it the order of a search without a barrier is gone through again, and any search finds out that
its controller would ask for other networks by now.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import UserError

JOURNAL = "journal.txt"
LINE = re.compile(r"ask (?P<asked>[0-9]+) (?P<run>[0-9a-f]+)|tell (?P<told>[0-9]+)")


@dataclass(frozen=True)
class Ask:
    """A sample was asked for: its number, and the run of its network."""

    number: int
    run_id: str

    def __str__(self) -> str:
        return f"ask {self.number} {self.run_id}"


@dataclass(frozen=True)
class Tell:
    """The controller was told what a sample is worth."""

    number: int

    def __str__(self) -> str:
        return f"tell {self.number}"


class Journal:
    """A file with a line for each event: `ask 12 0123456789ab` or `tell 9`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self) -> list[Ask | Tell]:
        """What has happened, in order; a last line that was not written whole has not.

        Raises UserError that names a line which is none of a journal, or cannot follow what stands
        before it.
        """
        found: list[Ask | Tell] = []
        untold: set[int] = set()
        asked = 0
        for place, raw in enumerate(self._whole().splitlines(), start=1):
            line = raw.decode("ascii", errors="replace")
            match = LINE.fullmatch(line)
            if match is None:
                raise self._refusal(place, line, "is neither `ask N RUN` nor `tell N`")
            if match["run"]:
                event: Ask | Tell = Ask(int(match["asked"]), match["run"])
                fits = event.number == asked
                untold.add(asked)
                asked += 1
            else:
                event = Tell(int(match["told"]))
                fits = event.number in untold
                untold.discard(event.number)
            if not fits:
                raise self._refusal(place, line, "cannot follow what stands before it")
            found.append(event)
        return found

    def runs(self) -> list[str]:
        """The runs that were asked for, by the samples' numbers."""
        return [event.run_id for event in self.events() if isinstance(event, Ask)]

    def mend(self) -> None:
        """Cut off a last line that was not written whole."""
        if self.path.is_file():
            os.truncate(self.path, len(self._whole()))

    def note(self, event: Ask | Tell) -> None:
        """Write one event down; it is on disk when this returns."""
        with self.path.open("ab") as file:
            file.write(f"{event}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> bytes:
        content = self.path.read_bytes() if self.path.is_file() else b""
        return content[: content.rfind(b"\n") + 1]

    def _refusal(self, place: int, line: str, why: str) -> UserError:
        return UserError(
            f"{self.path}: line {place}: {line!r} {why}; restore the file, or give the search "
            "another name"
        )
