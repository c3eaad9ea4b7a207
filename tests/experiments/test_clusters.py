"""The choice of an executor, and the file that describes a cluster: what is wrong is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.executors import local, open_executor
from experiments.executors.clusters import RayConfig, SlurmConfig, read_cluster
from experiments.executors.following import STOPPED, _Followed
from experiments.store import Failure, Store, write_failure
from experiments.study_file import load_study
from tests.experiments.docs import yaml_blocks
from tests.experiments.helpers import smoke_cells


def written(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def test_without_a_word_runs_are_processes_of_this_machine():
    assert open_executor(None) is open_executor("local") is local


def test_a_file_gives_what_it_says_and_defaults_for_the_rest(tmp_path):
    path = written(tmp_path, "kind: slurm\npartition: gpu\ngpu: true\noptions: {mail-type: FAIL}\n")
    expected = SlurmConfig(partition="gpu", gpu=True, options={"mail-type": "FAIL"})
    assert read_cluster(path) == expected
    assert read_cluster(written(tmp_path, "kind: ray\ngpus: 0.5\n")) == RayConfig(gpus=0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: slrum", "kind: 'slrum'; did you mean 'slurm'? known: ray, slurm"),
        ("partition: gpu", "kind: None; known: ray, slurm"),
        ("kind: slurm\npartitoin: gpu", "unknown key 'partitoin'; did you mean 'partition'?"),
        ("kind: ray\npartition: gpu", "unknown key 'partition'"),
        ("kind: slurm\nnodes: 0", "nodes: nodes must be at least 1, found 0"),
        ("kind: slurm\nnodes: many", "nodes: Input should be a valid integer"),
        ("kind: slurm\ntime: 4x", "time: time 4x: expected a time such as"),
        ("kind: slurm\ntime: 1m", "time: time 1m must be longer than warn_s, 120 seconds"),
        ("kind: slurm\nsetup: module load", "setup: Input should be a valid list"),
        ("kind: slurm\nscheduler: local\nnodes: 2", "nodes: nodes must be 1 with scheduler local"),
        ("kind: ray\nretries: -1", "retries: retries must not be negative, found -1"),
        ("kind: ray\ngpus: 2", "gpus: gpus is of one process, at most 1"),
        ("- ray", "expected a mapping"),
    ],
)
def test_a_wrong_file_is_named_with_key_value_and_the_way_out(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_cluster(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)


def test_a_file_and_an_option_that_disagree_are_refused(tmp_path):
    path = written(tmp_path, "kind: ray")
    with pytest.raises(UserError, match="kind: 'ray', and --executor slurm; give one"):
        open_executor("slurm", path)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_said_with_its_command(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"pip install '\.\[{name}\]', or use --executor local"):
        open_executor(name)


def test_a_job_whose_run_was_stopped_has_not_failed(tmp_path):
    cell, store = smoke_cells(load_study("ladder"))[0], Store(tmp_path)
    told = [event["kind"] for event in _Followed(cell, store).end(STOPPED)]
    assert told == ["start", "stopped"]
    assert store.failure(cell.run_id) is None
    (_, told) = _Followed(cell, store).end("it was lost")
    assert (told["kind"], told["failure"].error) == ("failed", "JobEnded")


def test_a_job_that_dies_before_its_run_begins_has_not_failed_as_the_one_before_it(tmp_path):
    cell, store = smoke_cells(load_study("ladder"))[0], Store(tmp_path)
    earlier = Failure("OutOfMemoryError", "of last week")
    write_failure(store.folder(cell.run_id, cell.recipe.name), earlier)
    (_, told) = _Followed(cell, store).end("job 7 is failed; 7.err has its words")
    assert told["failure"].message.endswith("job 7 is failed; 7.err has its words")
    assert store.failure(cell.run_id) == told["failure"]
    again = _Followed(cell, store)
    write_failure(store.folder(cell.run_id, cell.recipe.name), earlier)
    (_, told) = again.end("job 8 is failed")
    assert told["failure"] == earlier


def test_what_is_of_slurm_alone_says_so(run, tmp_path):
    code, _, err = run("reproduce", "-p", "smoke", "--detach", "--runs", tmp_path)
    assert code == 2
    assert "--detach and --print-script are of --executor slurm" in err


def test_every_cluster_in_the_documentation_is_one(tmp_path):
    shown = yaml_blocks("clusters.md")
    kinds = [read_cluster(written(tmp_path, text)).kind for text in shown]
    assert sorted(set(kinds)) == ["ray", "slurm"]
