"""A worker that may die at any write: `CHAOS="RUNS CHANCE SEED" python chaos_worker.py OPTION…`,
with options of `spinenet reproduce`.

Its run processes import this file too, so they die as it does: by SIGKILL, before or after a file
is flushed, linked or renamed, with this chance. Each death is noted in RUNS.deaths.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

RUNS, CHANCE, SEED = os.environ["CHAOS"].rsplit(" ", 2)
FIXED = ["ladder", "-p", "smoke", "--wandb", "disabled", "--jobs", "1", "--checkpoint-every", "0s"]

chance = random.Random(int(SEED) * 1_000_003 + os.getpid())


def dying(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, before or after which the process may end."""

    def wrapped(*given: Any, **named: Any) -> Any:
        _die(f"before {function.__name__}")
        done = function(*given, **named)
        _die(f"after {function.__name__}")
        return done

    return wrapped


def _die(where: str) -> None:
    if chance.random() < float(CHANCE):
        with open(f"{RUNS}.deaths", "a") as file:
            file.write(f"{os.getpid()} {where}\n")
        os.kill(os.getpid(), signal.SIGKILL)


for name in ("fsync", "replace", "link"):
    setattr(os, name, dying(getattr(os, name)))

if __name__ == "__main__":
    from experiments.cli import main

    sys.argv = ["spinenet", "reproduce", *FIXED, "--runs", RUNS, *sys.argv[1:]]
    main()
