"""Jobs: a study by submitit's own scheduler has the results of this machine, a job that is told to
end goes on later, and the scripts for a cluster say only what sbatch knows.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from experiments.errors import UserError
from experiments.executors import open_executor, run_cells
from experiments.executors.clusters import SlurmConfig
from experiments.executors.jobs import note_job, queued_jobs
from experiments.grid import make_plan
from experiments.runtime import Processes, Runtime
from experiments.store import Store
from experiments.study_file import load_study
from tests.experiments.helpers import run_grid, smoke_cells
from tests.experiments.test_executors import within

pytest.importorskip("submitit", reason="submitit is not installed")
from experiments.executors.slurm import SlurmExecutor

FLAGS = Path(__file__).parents[1] / "reference" / "sbatch_options.json"
QUIET = Runtime(accelerator="cpu", wandb="disabled")
HERE = SlurmConfig(scheduler="local", time="20m")


def weights(store: Store, run_id: str) -> dict[str, torch.Tensor]:
    folder = store.find(run_id)
    assert folder is not None
    return load_file(folder / "weights.safetensors")


def test_jobs_end_with_the_results_of_this_machine(smoke_grid, tmp_path):
    _, grid, here = smoke_grid
    some, there, events = grid[:2], Store(tmp_path), []
    runtimes = {cell.run_id: QUIET for cell in some}

    def watch(cell, event):
        events.append((cell.variant, event["kind"]))

    assert run_cells(SlurmExecutor(HERE), some, there, runtimes, 2, watch) == []
    for cell in some:
        assert [k for v, k in events if v == cell.variant and k in ("start", "done")] == [
            "start",
            "done",
        ]
        mine, theirs = weights(here, cell.run_id), weights(there, cell.run_id)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def job_of(controller: int) -> int:
    """The process that a job consists of, which SLURM signals."""
    children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    return int(children[0])


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds a process in /proc")
def test_a_job_that_must_end_goes_on_later_to_the_same_weights(tmp_path):
    study = load_study("ladder")
    cell = smoke_cells(study, changes={"train.epochs": 8})[0]
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    run_grid(study, [cell], here)
    executor, told = SlurmExecutor(HERE), []
    submit = executor.submit

    def watch(cell, event):
        checkpoints = list(there.root.glob("*/checkpoints/*.ckpt"))
        if event["kind"] == "step" and checkpoints and not told:
            os.kill(job_of(int(jobs[0].job_id)), signal.SIGUSR2)
            told.append(event["step"])

    jobs = []
    executor.submit = lambda tasks, store: jobs.extend(submit(tasks, store)) or jobs
    run_cells(executor, [cell], there, {cell.run_id: QUIET}, 1, watch)
    assert told
    said = "".join(p.read_text() for p in there.root.glob(".slurm/*_log.*"))
    assert "preempted" in said
    mine, theirs = weights(here, cell.run_id), weights(there, cell.run_id)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds a process in /proc")
def test_a_job_whose_run_is_not_told_that_it_must_end_tells_it(tmp_path):
    """SLURM signals the processes that it has started itself, and no children of theirs."""
    cell = smoke_cells(load_study("ladder"), changes={"train.epochs": 200})[0]
    store, executor, told = Store(tmp_path), SlurmExecutor(HERE), []
    submit = executor.submit

    def end(job: int) -> None:
        log = store.folder(cell.run_id, cell.recipe.name) / "train.log"
        told.append(within(60, lambda: "with a checkpoint" in log.read_text()))
        os.kill(job, signal.SIGKILL)  # it waits to be ended

    def watch(cell, event):
        if event["kind"] == "step" and not told:
            job = job_of(int(jobs[0].job_id))
            os.kill(job, signal.SIGTERM)
            told.append("begun")
            threading.Thread(target=end, args=(job,)).start()

    jobs = []
    executor.submit = lambda tasks, store: jobs.extend(submit(tasks, store)) or jobs
    run_cells(executor, [cell], store, {cell.run_id: QUIET}, 1, watch)
    assert told == ["begun", True]


def test_a_job_that_dies_without_a_word_is_a_failure(tmp_path, monkeypatch):
    cell, store, events = smoke_cells(load_study("ladder"))[0], Store(tmp_path), []
    executor = SlurmExecutor(HERE)
    submit = executor.submit

    def killed(tasks, store):
        jobs = submit(tasks, store)
        jobs[0]._process.kill()
        return jobs

    executor.submit = killed
    run_cells(executor, [cell], store, {cell.run_id: QUIET}, 1, lambda _, e: events.append(e))
    assert [event["kind"] for event in events] == ["start", "failed"]
    assert "the job ended without a result" in events[-1]["failure"].message


def options(script: str) -> dict[str, str]:
    """The sbatch options of a script."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE))


FULL = SlurmConfig(
    account="vision",
    partition="gpu",
    qos="long",
    constraint="a100",
    time="1d12h",
    gpu=True,
    memory_gb=64,
    nodes=2,
    setup=["module load cuda", "source venv/bin/activate"],
    options={"mail-type": "FAIL", "nice": 100},
)


@pytest.mark.parametrize("config", [SlurmConfig(), FULL])
def test_a_script_says_only_what_sbatch_documents(config, tmp_path):
    known = set(json.loads(FLAGS.read_text())["options"])
    grid = smoke_cells(load_study("ladder"))
    for tasks in ([(grid[0], QUIET)], [(cell, QUIET) for cell in grid]):
        script = SlurmExecutor(config).script(tasks, Store(tmp_path))
        assert script.startswith("#!/bin/bash")
        found = options(script)
        assert len(found) > 5
        assert set(found) - known == set()
        assert {name for name, value in found.items() if not value} == {"requeue"}


def test_a_script_asks_for_what_the_file_says(tmp_path):
    grid = smoke_cells(load_study("ladder"))
    two = replace(QUIET, processes=Processes(devices=4))
    script = SlurmExecutor(FULL).script([(cell, two) for cell in grid], Store(tmp_path))
    found = options(script)
    assert (found["account"], found["partition"], found["qos"]) == ("vision", "gpu", "long")
    assert (found["nodes"], found["ntasks-per-node"], found["gpus-per-node"]) == ("2", "1", "4")
    assert (found["time"], found["mem"]) == (str(36 * 60), "64GB")
    assert int(found["cpus-per-task"]) == 4 * grid[0].recipe.train.threads
    assert found["array"] == "0-4%5"
    assert found["signal"].endswith("@120")
    assert "requeue" in found
    assert (found["mail-type"], found["nice"]) == ("FAIL", "100")
    lines = script.splitlines()
    assert lines.index("module load cuda") < lines.index("source venv/bin/activate")
    assert any(line.startswith("srun ") for line in lines)


def test_print_script_needs_no_cluster_and_submits_nothing(run, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("kind: slurm\npartition: gpu\n")
    shared = ("reproduce", "ladder", "-p", "smoke", "--runs", tmp_path / "runs")
    code, out, _ = run(*shared, "--cluster", file, "--print-script")
    assert code == 0
    assert "#SBATCH --partition=gpu" in out
    assert list((tmp_path / "runs").glob("*-*")) == []


def test_without_sbatch_the_way_out_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run(
        "reproduce", "ladder", "-p", "smoke", "--runs", tmp_path, "--executor", "slurm"
    )
    assert code == 2
    assert "no sbatch; submit from a login node" in err


def queue(folder: Path, monkeypatch: pytest.MonkeyPatch, jobs: str) -> None:
    """A squeue that lists these jobs."""
    program = folder / "squeue"
    program.write_text(f"#!/bin/sh\nprintf '{jobs}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_run_that_has_a_job_in_the_queue_keeps_it_and_status_shows_it(run, tmp_path, monkeypatch):
    grid, store = smoke_cells(load_study("ladder"))[:2], Store(tmp_path / "runs")
    note_job(store, grid[0].run_id, "77_0")
    note_job(store, grid[1].run_id, "77_1")
    assert queued_jobs(store) == {}
    queue(tmp_path, monkeypatch, "77_0\\n80\\n")
    assert queued_jobs(store) == {grid[0].run_id: "77_0"}
    (kept,) = SlurmExecutor(SlurmConfig()).submit([(grid[0], QUIET)], store)
    assert kept.job_id == "77_0"
    _, out, _ = run("status", "ladder", "-p", "smoke", "--runs", store.root, "--json")
    states = {row["run"]: row["state"] for row in json.loads(out)}
    assert states[grid[0].run_id] == "queued, job 77_0"
    assert states[grid[1].run_id] == "missing"


def test_a_preempted_job_that_queues_up_again_has_not_ended(tmp_path, monkeypatch):
    paths = SimpleNamespace(stderr=Path("77_0_log.err"))
    job = SimpleNamespace(done=lambda: True, job_id="77_0", state="PREEMPTED", paths=paths)
    queue(tmp_path, monkeypatch, "77_0\\n")
    assert SlurmExecutor(SlurmConfig()).ended(job) is None
    queue(tmp_path, monkeypatch, "78\\n")
    told = SlurmExecutor(SlurmConfig()).ended(job)
    assert told == "job 77_0 is preempted; 77_0_log.err has its words"


def test_a_queue_that_does_not_answer_is_not_an_empty_one(tmp_path, monkeypatch):
    store = Store(tmp_path / "runs")
    note_job(store, "a" * 12, "77_0")
    queue(tmp_path, monkeypatch, "77_0\\n")
    executor = SlurmExecutor(SlurmConfig())
    assert executor._is_queued("77_0")
    (tmp_path / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    with pytest.raises(UserError, match="squeue: no controller; try again when SLURM answers"):
        queued_jobs(store)
    monkeypatch.setattr("experiments.executors.slurm.QUEUE_EVERY_S", -1.0)
    assert executor._is_queued("77_0")


def test_machines_without_internet_keep_records_in_the_store():
    offline = SlurmExecutor(SlurmConfig(internet=False))._runtime(Runtime(wandb="auto"))
    assert offline.wandb == "offline"
    assert SlurmExecutor(SlurmConfig())._runtime(Runtime(wandb="auto")).wandb == "auto"
    assert SlurmExecutor(SlurmConfig(gpu=True))._runtime(Runtime()).accelerator == "gpu"


def test_detached_jobs_go_on_by_themselves(run, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("kind: slurm\nscheduler: local\n")
    shared = ("ladder", "-p", "smoke", "--only", "r50-fpn", "--runs", tmp_path / "runs")
    code, out, _ = run("reproduce", *shared, "--cluster", file, "--detach", "--wandb", "disabled")
    assert code == 0
    assert re.search(r"ladder: r50-fpn seed 0: job \d+", out)
    grid = [c for c in smoke_cells(load_study("ladder")) if c.variant == "r50-fpn"]
    store = Store(tmp_path / "runs")
    for _ in range(600):
        if make_plan(grid, store).count("complete"):
            return
        signal.sigtimedwait([], 0.1)
    raise AssertionError("the job has not ended within a minute")


def test_a_file_chooses_its_executor(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("kind: slurm\n")
    assert isinstance(open_executor(None, file), SlurmExecutor)
