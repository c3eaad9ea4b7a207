"""How fast a search goes: candidates per hour and core, and the time that was no training.

Each time that the command is run it adds a line to `sessions.jsonl` in the search's folder, and
another for the finalists; one that is killed adds none. Core seconds are the clock's times the
threads of all workers, so that workers which wait count as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError, first_problem
from experiments.store import Result

SESSIONS = "sessions.jsonl"


@dataclass(frozen=True)
class Session:
    """One go at a search: seconds of the clock, cores in use, and of the runs that ended in it how
    many there were, what they took, and how much of that was training.
    """

    wall_s: float
    cores: int
    runs: int
    run_s: float
    train_s: float


@dataclass(frozen=True)
class Pace:
    """Of all sessions. The shares are of core seconds: `outside_training` is start, data,
    validation and all that is outside runs; `outside_runs` only the latter.
    """

    runs: int
    per_core_hour: float
    outside_training: float
    outside_runs: float

    @property
    def line(self) -> str:
        """For people."""
        return (
            f"{self.runs} runs, {self.per_core_hour:.0f} per hour and core; "
            f"{100 * self.outside_training:.1f} % of the time outside training, "
            f"{100 * self.outside_runs:.1f} % outside runs"
        )


def session(wall_s: float, cores: int, ended: Sequence[Result]) -> Session:
    """A session from the results of the runs that it made."""
    run_s, train_s = sum(r.seconds for r in ended), sum(r.train_seconds for r in ended)
    return Session(wall_s, cores, len(ended), run_s, train_s)


def note(folder: Path, made: Session) -> None:
    """Add a session to a search's folder, if it has made a run."""
    if made.runs:
        with (folder / SESSIONS).open("a") as file:
            file.write(json.dumps(asdict(made)) + "\n")


def read_pace(folder: Path) -> Pace | None:
    """The pace over all sessions; None where none has made a run.

    Raises UserError for a line that is no session.
    """
    path = folder / SESSIONS
    lines = path.read_text().splitlines() if path.is_file() else []
    try:
        sessions = [TypeAdapter(Session).validate_json(line) for line in lines]
    except ValidationError as error:
        key, told = first_problem(error)
        raise UserError(f"{path}: {key or 'line'}: {told}; remove the line, or the file") from None
    return pace(sessions)


def pace(sessions: Sequence[Session]) -> Pace | None:
    """What the sessions amount to; None if they made no run."""
    core_s, runs = sum(s.wall_s * s.cores for s in sessions), sum(s.runs for s in sessions)
    if not runs:
        return None
    return Pace(
        runs=runs,
        per_core_hour=3600 * runs / core_s,
        outside_training=1 - sum(s.train_s for s in sessions) / core_s,
        outside_runs=1 - sum(s.run_s for s in sessions) / core_s,
    )
