"""Runs recorded in W&B's format, sent to its server: beside training, or afterwards.

Sending is another process's business, so that a server that is slow, down or refuses costs a run
nothing. `python -m experiments.uploading RECORD` follows a record while it grows, by `wandb beta
sync --live`. Its standard input is a pipe from the run: when that closes, because the run has ended
in whatever way, what is left has `GRACE_S` to be sent.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.errors import UserError
from experiments.subprocesses import environment

GRACE_S = 600
WANDB = (sys.executable, "-m", "wandb")


def start_upload(record: Path) -> subprocess.Popen[bytes]:
    """Begin to send a run's record; what is said meanwhile goes to `upload.log` beside it."""
    with (record.parent / "upload.log").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.uploading", str(record)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment(WANDB_DIR=str(record.parents[1])),
            start_new_session=True,  # an interrupt at the terminal is for the run alone
        )


def records(runs: Path) -> list[Path]:
    """Folders that W&B recorded runs in, under a folder of runs. Raises UserError where there are
    none.
    """
    found = sorted(runs.glob("*/wandb/*run-*-*"))
    if not found:
        raise UserError(
            f"{runs}: no run here was recorded for W&B; give the folder of runs by --runs, and "
            "train without --wandb disabled"
        )
    return found


def send(found: Sequence[Path], *, dry: bool = False) -> int:
    """Send records by W&B's own command, which passes over those that it has; its exit code. What
    it notes of errors goes beside the runs.
    """
    command = [*WANDB, "sync", "--yes", *(["--dry-run"] if dry else []), *map(str, found)]
    return subprocess.run(command, env=environment(WANDB_DIR=str(found[0].parents[2]))).returncode


def _follow(record: str) -> int:
    """Send until the record is complete, or GRACE_S after the run has ended."""
    sender = subprocess.Popen(
        [*WANDB, "beta", "sync", "--live", "--yes", record], stdin=subprocess.DEVNULL
    )

    def give_up() -> None:
        sys.stdin.buffer.read()
        time.sleep(GRACE_S)
        sender.kill()

    threading.Thread(target=give_up, daemon=True).start()
    return sender.wait()


if __name__ == "__main__":
    sys.exit(_follow(sys.argv[1]))
