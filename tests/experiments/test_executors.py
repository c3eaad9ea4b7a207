"""What all executors rest on: runs as processes that end with whoever watches them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children

from experiments.executors import local, run_cells
from experiments.runtime import Runtime
from experiments.store import Store
from experiments.study_file import load_study
from experiments.subprocesses import environment
from tests.experiments.helpers import smoke_cells

QUIET = Runtime(accelerator="cpu", wandb="disabled")
REPRODUCE = "from experiments.cli import main; main()"


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    """Whether something becomes so in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_run_may_have_processes_that_load_its_data(tmp_path):
    cell, store, ends = smoke_cells(load_study("ladder"))[0], Store(tmp_path), []
    loading = Runtime(accelerator="cpu", wandb="disabled", num_workers=1)
    run_cells(local, [cell], store, {cell.run_id: loading}, 1, lambda _, e: ends.append(e["kind"]))
    assert ends[-1] == "done"
    assert store.state(cell.run_id) == "complete"


def test_a_run_that_is_told_to_end_before_it_listens_has_not_failed(tmp_path):
    cell, store, ends = smoke_cells(load_study("ladder"))[0], Store(tmp_path), []

    def watch(cell, event):
        ends.append(event["kind"])
        if event["kind"] == "start":
            for process in active_children():
                process.terminate()

    run_cells(local, [cell], store, {cell.run_id: QUIET}, 1, watch)
    assert ends == ["start", "stopped"]
    assert store.state(cell.run_id) == "missing"


def test_what_goes_wrong_before_a_run_is_begun_is_told(tmp_path):
    cell, store, events = smoke_cells(load_study("ladder"))[0], Store(tmp_path), []
    folder = store.folder(cell.run_id, cell.recipe.name)
    folder.mkdir()
    (folder / "train.log").mkdir()
    run_cells(local, [cell], store, {cell.run_id: QUIET}, 1, lambda _, e: events.append(e))
    told = events[-1]["failure"].message
    assert "exit code 1 and no result: IsADirectoryError" in told
    assert f"{folder}/output.log has all that it said" in told


def test_a_run_does_not_outlive_whoever_started_it(tmp_path):
    cell = smoke_cells(load_study("ladder"), changes={"train.epochs": 300})[0]
    store = Store(tmp_path)
    command = [sys.executable, "-c", REPRODUCE, "reproduce", "ladder", "-p", "smoke"]
    command += ["--only", cell.variant, "--set", "train.epochs=300", "--runs", str(tmp_path)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    try:
        assert within(120, lambda: store.state(cell.run_id) == "running")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert within(60, lambda: store.state(cell.run_id) == "missing")
