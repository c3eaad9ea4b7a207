"""Which SLURM job has a run, and which of these jobs are still in the queue."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from experiments.errors import UserError
from experiments.store import Store, write_atomically

JOBS = ".slurm"  # in the folder of runs: submitit's files, and a job's number by run id


def queued() -> set[str]:
    """This user's jobs that wait or run. Raises UserError where SLURM does not answer: then they
    are not known, which is not to say that there are none.
    """
    user = os.environ.get("USER", str(os.getuid()))
    asked = ["squeue", "--noheader", "--array", "--format=%i", "--user", user]
    answer = subprocess.run(asked, capture_output=True, text=True)
    if answer.returncode:
        said = answer.stderr.strip() or f"exit code {answer.returncode} without a word"
        raise UserError(f"squeue: {said}; try again when SLURM answers")
    return set(answer.stdout.split())


def note_job(store: Store, run_id: str, job: str) -> None:
    """Remember that a run was submitted as this job."""
    write_atomically(store.root / JOBS / f"{run_id}.json", json.dumps({"job": job}))


def queued_jobs(store: Store) -> dict[str, str]:
    """The job by run id of all runs that wait in this user's queue or are running there; none
    where nothing was submitted, or there is no queue to ask.
    """
    notes = list((store.root / JOBS).glob("*.json"))
    if not notes or shutil.which("squeue") is None:
        return {}
    queue = queued()
    submitted = {note.stem: json.loads(note.read_text())["job"] for note in notes}
    return {run: job for run, job in submitted.items() if job in queue}
