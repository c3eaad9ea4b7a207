"""What a benchmark is made of: contests, our way of doing something against the one a user would
take instead.

A benchmark is a generator of contests, so that the networks and files of one are gone before the
next is set up, and it may skip what this machine lacks. Measuring is `experiments.bench.measure`'s.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Device = Literal["cpu", "cuda"]
Precision = Literal["32", "bf16"]
Clock = Literal["wall", "cpu"]

EXTRA = "bench"  # the optional dependencies that hold the peers


@dataclass(frozen=True)
class Settings:
    """How to measure. `compiled` has our networks compiled and leaves out what is never compiled
    whole. `quick` takes toy sizes, which show that it runs and measure nothing.
    """

    device: Device = "cpu"
    precision: Precision = "32"
    threads: int = 1
    rounds: int = 12
    quick: bool = False
    compiled: bool = False

    @property
    def command(self) -> str:
        """The options that give these settings again."""
        options = f"--device {self.device} --precision {self.precision} --threads {self.threads}"
        options += f" --rounds {self.rounds}" + " --compile" * self.compiled
        return options + " --quick" * self.quick


@dataclass(frozen=True)
class Side:
    """One way to do it. `run` does `work` units; what it returns is left alone."""

    label: str
    run: Callable[[], object]
    work: float = 1.0


@dataclass(frozen=True)
class Contest:
    """Two ways to do the same.

    `unit` is that of the sides' work, or "s" where a side is one piece of work. Wall time decides,
    or with `clock` "cpu" the processor's, which is how "per core" is meant. `threads` overrides the
    settings'. `facts` is asked once after measuring, told the seconds of our side; of what it
    answers, `note` is shown in the tables.
    """

    name: str
    ours: Side
    theirs: Side
    unit: str = "s"
    clock: Clock = "wall"
    threads: int | None = None
    facts: Callable[[float], dict[str, Any]] = lambda seconds: {}


@dataclass(frozen=True)
class Skipped:
    """A contest that cannot be held here, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """A subject of which contests are held."""

    title: str
    contests: Callable[[Settings], Iterator[Contest | Skipped]]


def missing(module: str, package: str) -> str | None:
    """Why a peer cannot take part; None if it is installed."""
    if importlib.util.find_spec(module) is not None:
        return None
    return f"{package} is not installed (pip install '.[{EXTRA}]')"
