"""How far a run is, where another process can read it: `progress.json` in the run's folder.

It is no part of any result. Writing is best effort: at most once a second, and whatever goes wrong
with it is left unsaid, since a run must not fail for being watched. A finished run has none; one
that failed or was stopped keeps its last, which says how far it came.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

FILE = "progress.json"
WRITE_EVERY_S = 1.0


@dataclass(frozen=True)
class Progress:
    """A moment of a run. `step` of `total` optimiser steps are done; `begun_at_step` were done when
    this process took the run up, at `begun`. Times are seconds since 1970; `value` is the last
    validation's `metric`.
    """

    step: int
    total: int
    batch_size: int
    begun: float
    begun_at_step: int
    updated: float
    metric: str = ""
    value: float | None = None

    @property
    def share(self) -> float:
        """Done, from 0 to 1."""
        return min(1.0, self.step / self.total) if self.total > 0 else 0.0

    @property
    def images_per_second(self) -> float | None:
        """The mean rate since this process took the run up; None before its second report."""
        seconds, steps = self.updated - self.begun, self.step - self.begun_at_step
        return steps * self.batch_size / seconds if seconds > 0 and steps > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Of training, at that rate; validation comes on top."""
        rate = self.images_per_second
        return None if rate is None else max(0, self.total - self.step) * self.batch_size / rate


class ProgressFile:
    """Takes the events of one run in `folder` and keeps its file up to date."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        self.path, self.batch_size = folder / FILE, batch_size
        self.now: Progress | None = None
        self.written = 0.0

    def take(self, event: dict[str, Any]) -> None:
        """One event as `callbacks.Report` sends it."""
        fresh = time.time()
        facts: dict[str, Any] = {"begun": fresh, "begun_at_step": event.get("step", 0), "step": 0}
        facts |= {"total": 0, "batch_size": self.batch_size}
        facts |= {} if self.now is None else asdict(self.now)
        known = ("step", "total") if event["kind"] == "step" else ("metric", "value")
        self.now = Progress(**{**facts, **{k: event[k] for k in known}, "updated": fresh})
        if time.monotonic() - self.written >= WRITE_EVERY_S or event["kind"] != "step":
            self.written = time.monotonic()
            self._write(json.dumps(asdict(self.now)))

    def remove(self) -> None:
        """The run is finished."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        """Replaced as a whole, so that no reader sees half; not flushed to disk, it is news."""
        beside = self.path.with_name(f".{FILE}-{os.getpid()}")
        with suppress(OSError):
            beside.write_text(text)
            os.replace(beside, self.path)


def read_progress(folder: Path) -> Progress | None:
    """How far a run is; None where that is not known."""
    try:
        return TypeAdapter(Progress).validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return None
