"""The grid: runs what is missing, skips what is there, survives a failed cell and a kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from experiments import table_formats, tables
from experiments.counting import longest_first
from experiments.errors import UserError
from experiments.executors import local, run_cells
from experiments.executors.attempts import Attempt
from experiments.executors.local import default_workers
from experiments.grid import collect, make_plan, paper_values
from experiments.runtime import Runtime
from experiments.store import Failure, Store, read_result, write_failure, write_result
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study
from tests.experiments.helpers import run_grid, smoke_cells


def test_a_complete_grid_is_not_run_again(smoke_grid):
    study, grid, store = smoke_grid
    assert make_plan(grid, store).count("complete") == 5
    assert run_grid(study, grid, store) == []


def test_results_are_collected_by_variant_and_seed(smoke_grid):
    _, grid, store = smoke_grid
    found = collect(grid, store)
    assert {v: sorted(r) for v, r in found.items()} == {c.variant: [0] for c in grid}


def test_within_a_seed_the_longest_run_starts_first():
    grid = smoke_cells(load_study("ladder"))
    later = [replace(cell, seed=1) for cell in grid]
    ordered = longest_first([*later, *grid])
    assert [c.seed for c in ordered] == [0] * 5 + [1] * 5
    assert ordered[0].variant == "spinenet-96"
    assert {c.variant for c in ordered[:5]} == {c.variant for c in grid}


def test_a_failed_cell_is_recorded_and_the_others_go_on(tmp_path):
    study, store = load_study("ladder"), Store(tmp_path)
    grid = smoke_cells(study)[:2]
    broken = replace(
        grid[0], recipe=replace(grid[0].recipe, optim=replace(grid[0].recipe.optim, lr=1e30))
    )
    events = run_grid(study, [broken, grid[1]], store)
    assert ("r50-fpn", "failed") in events
    assert ("permutation-only", "done") in events
    failure = store.failure(broken.run_id)
    assert failure is not None
    assert failure.error == "NonFiniteLossError"
    assert "Traceback" in failure.traceback
    assert store.state(broken.run_id) == "failed"
    assert make_plan([broken, grid[1]], store).missing == [broken]


def test_a_run_that_dies_without_a_word_is_a_failure(tmp_path, monkeypatch):
    study, store = load_study("ladder"), Store(tmp_path)
    cell = smoke_cells(study)[0]
    seen = []

    def watch(cell, event):
        seen.append(event["kind"])
        if event["kind"] == "step":
            folder = store.find(cell.run_id)
            assert folder is not None
            (lease,) = (folder / ".lease").iterdir()
            pid = json.loads(lease.read_text())["pid"]
            os.kill(pid, signal.SIGKILL)

    run_cells(local, [cell], store, {cell.run_id: Runtime(wandb="disabled")}, 1, watch)
    failure = store.failure(cell.run_id)
    assert seen[-1] == "failed"
    assert failure is not None
    assert "SIGKILL" in failure.message


def weights(store: Store, run_id: str) -> dict[str, torch.Tensor]:
    folder = store.find(run_id)
    assert folder is not None
    return load_file(folder / "weights.safetensors")


INTERRUPTED = """
import signal
import sys
from experiments.cli import main

if __name__ == "__main__":
    # A shell that runs its jobs in the background has them ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["spinenet", "reproduce", "-p", "smoke", "--runs", sys.argv[1], "--jobs", "1"]
    sys.argv += ["--only", "r50-fpn", "--only", "spinenet-49", "--wandb", "disabled"]
    sys.argv += ["--set", "train.epochs=10"]
    main()
"""


def test_interrupting_the_second_cell_keeps_the_first_and_changes_no_result(smoke_grid, tmp_path):
    study = smoke_grid[0]
    first, second = (
        c
        for c in smoke_cells(study, changes={"train.epochs": 10})
        if c.variant in ("r50-fpn", "spinenet-49")
    )
    undisturbed, store = Store(tmp_path / "undisturbed"), Store(tmp_path / "runs")
    run_grid(study, [second], undisturbed)

    script = tmp_path / "reproduce.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen([sys.executable, str(script), str(store.root)])
    deadline = time.monotonic() + 300
    underway = f"*-{second.run_id}/checkpoints/*.ckpt"
    while time.monotonic() < deadline and not list(store.root.glob(underway)):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait(120)
    assert process.returncode == 130
    assert [store.state(c.run_id) for c in (first, second)] == ["complete", "missing"]
    folder = store.find(first.run_id)
    assert folder is not None
    finished = (folder / "result.json").stat().st_mtime_ns

    events = run_grid(study, [first, second], store)
    assert events == [("spinenet-49", "start"), ("spinenet-49", "done")]
    assert (folder / "result.json").stat().st_mtime_ns == finished
    again, before = weights(store, second.run_id), weights(undisturbed, second.run_id)
    assert all(torch.equal(again[key], before[key]) for key in before)


def test_a_result_that_is_no_result_names_the_file_and_the_way_out(smoke_grid, tmp_path):
    _, grid, store = smoke_grid
    good = store.result(grid[0].run_id)
    assert good is not None
    write_result(tmp_path, good)
    assert read_result(tmp_path) == good
    path = tmp_path / "result.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match=r"result\.json: .*remove the file to run this cell again"):
        read_result(tmp_path)
    path.write_text(json.dumps({**json.loads(json.dumps(good.__dict__)), "schema_version": 99}))
    with pytest.raises(UserError, match="schema_version: 99"):
        read_result(tmp_path)


def test_a_process_that_dies_before_its_run_begins_has_not_failed_as_the_one_before_it(tmp_path):
    cell, store, told = smoke_cells(load_study("ladder"))[0], Store(tmp_path), []
    write_failure(store.folder(cell.run_id, cell.recipe.name), Failure("E", "of last week"))
    pipe, other_end = multiprocessing.Pipe(duplex=False)
    other_end.close()
    crashed = SimpleNamespace(join=lambda: None, exitcode=-signal.SIGSEGV)
    job = local._Job(cell, crashed, pipe, slot=0, attempt=Attempt(cell, store))
    assert not local._receive(job, store, lambda _, event: told.append(event))
    assert told[0]["failure"].message == "the run's process was ended by SIGSEGV"
    assert store.failure(cell.run_id) == told[0]["failure"]


def test_a_failure_gives_way_to_a_result(smoke_grid, tmp_path):
    _, grid, store = smoke_grid
    failure = store.failure(grid[0].run_id)
    assert failure is None
    write_failure(tmp_path, Failure("E", "m"))
    good = store.result(grid[0].run_id)
    assert good is not None
    write_result(tmp_path, good)
    assert not (tmp_path / "failure.json").exists()


def test_workers_fit_the_cores_the_memory_and_the_cells(monkeypatch):
    grid = smoke_cells(load_study("ladder"))
    memory = {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 100 * local.MEMORY_PER_RUN // 2**12}
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(local, "usable_cores", lambda: 8)
    monkeypatch.setattr(os, "sysconf", memory.__getitem__)
    threaded = replace(grid[0].recipe, train=replace(grid[0].recipe.train, threads=3))
    assert (default_workers([]), default_workers(grid[:1]), default_workers(grid)) == (1, 1, 5)
    assert default_workers([*grid[1:], replace(grid[0], recipe=threaded)]) == 2
    assert default_workers(grid, devices=4) == 2
    memory["SC_PHYS_PAGES"] = 3 * local.MEMORY_PER_RUN // 2**12
    assert default_workers(grid) == 3
    memory["SC_PHYS_PAGES"] = 1
    assert default_workers(grid) == 1


def test_the_tables_show_measured_printed_and_difference(smoke_grid):
    study, grid, store = smoke_grid
    report = tables.make_report(study, grid, store)
    text = tables.to_markdown(report)
    for printed in ("37.8", "28.2", "40.7", "40.8", "47.1", "96.8", "265.4"):
        assert printed in text
    assert "+ adjustment (SpineNet-49) | 85.28 | 85.4 | -0.1%" in text
    body = table_formats.to_mapping(report)
    row = body["rows"][0]
    assert row["paper"]["AP"]["source"]
    assert row["measured"]["AP"]["count"] == 1
    assert row["runs"] == [grid[0].run_id]
    verdicts = {c["id"]: c["verdict"] for c in body["claims"]}
    assert verdicts["adjustment-cost"] == "counted"
    assert verdicts["permutation"] == "inconclusive"


def test_a_variant_that_was_not_run_has_an_empty_cell_not_a_guess(tmp_path):
    study = load_study("ladder")
    report = tables.make_report(study, smoke_cells(study), Store(tmp_path))
    _, rows = tables.metric_table(report)
    assert all(row[1] == "" and row[3] == "" for row in rows)
    assert {j.verdict for j in report.judgements if j.claim.metric == "AP"} == {"not run"}


def test_a_run_that_several_rows_share_is_beside_none_of_their_numbers():
    """SpineNet-49S and -49 at 896 pixels are SpineNet-49 where the profile sets width and side."""
    study = load_study("one_stage")
    grid = cells(study, Selection(profile=load_profile("embedded"), seeds=1))
    printed = paper_values(study, grid)
    runs = {cell.variant: cell.run_id for cell in grid}
    assert runs["spinenet-49"] == runs["spinenet-49-896"]
    assert printed[runs["spinenet-49"]] == {}
    assert printed[runs["r50-fpn"]] == {"one_stage": dict(study.variants["r50-fpn"].paper)}
