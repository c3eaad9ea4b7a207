"""A worker on a small grid that may die at any write: python chaos_worker.py RUNS CHANCE SEED.

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

RUNS, CHANCE, SEED = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
STUDY = ["ladder", "-p", "smoke", "--seeds", "2", "--wandb", "disabled", "--jobs", "2"]
SET = {"train.epochs": 3, "train.batch_size": 4, "data.transform.side": 64}

chance = random.Random(SEED * 1_000_003 + os.getpid())


def dying(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, before or after which the process may end."""

    def wrapped(*given: Any, **named: Any) -> Any:
        _die(f"before {function.__name__}")
        done = function(*given, **named)
        _die(f"after {function.__name__}")
        return done

    return wrapped


def _die(where: str) -> None:
    if chance.random() < CHANCE:
        with open(f"{RUNS}.deaths", "a") as file:
            file.write(f"{os.getpid()} {where}\n")
        os.kill(os.getpid(), signal.SIGKILL)


for name in ("fsync", "replace", "link"):
    setattr(os, name, dying(getattr(os, name)))

if __name__ == "__main__":
    from experiments.cli import main

    sets = [word for key, value in SET.items() for word in ("--set", f"{key}={value}")]
    sys.argv = ["spinenet", "reproduce", *STUDY, *sets, "--runs", RUNS, "--checkpoint-every", "0s"]
    main()
