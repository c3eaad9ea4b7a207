"""Runs on a Ray cluster: the results of this machine's own processes, also when a node is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments import tables
from experiments.errors import UserError
from experiments.executors import run_cells
from experiments.executors.clusters import RayConfig
from experiments.grid import make_plan, paper_values
from experiments.runtime import Runtime
from experiments.store import Store
from experiments.study_file import load_study
from tests.experiments.helpers import run_grid, smoke_cells

ray = pytest.importorskip("ray", reason="Ray is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
from experiments.executors.ray import RayExecutor  # noqa: E402

VARIANTS = ("r50-fpn", "permutation-only")


@pytest.fixture(scope="module")
def cluster():
    at_once = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": at_once}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    yield made
    ray.shutdown()
    made.shutdown()


def weights(store: Store, run_id: str) -> dict[str, torch.Tensor]:
    folder = store.find(run_id)
    assert folder is not None
    return load_file(folder / "weights.safetensors")


def test_a_cluster_that_is_not_there_is_said():
    grid = smoke_cells(load_study("ladder"))
    with pytest.raises(UserError, match=r"address 'auto': .*ray start --head"):
        RayExecutor(RayConfig(address="auto")).default_workers(grid)


def test_a_lost_node_costs_no_run_and_changes_no_result(cluster, tmp_path: Path):
    study = load_study("ladder")
    grid = [c for c in smoke_cells(study, changes={"train.epochs": 4}) if c.variant in VARIANTS]
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    run_grid(study, grid, here)

    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    executor = RayExecutor(RayConfig(address=cluster.address))
    workers, events, lost = executor.default_workers(grid), [], []
    assert workers == 2

    def watch(cell, event):
        events.append((cell.variant, event["kind"]))
        if event["kind"] == "step" and not lost:
            cluster.remove_node(node, allow_graceful=False)
            lost.append(node)

    printed = paper_values(study, grid)
    runtimes = {c.run_id: Runtime(wandb="disabled", paper=printed[c.run_id]) for c in grid}
    assert run_cells(executor, grid, there, runtimes, workers, watch) == []
    assert lost
    assert [kind for _, kind in events].count("done") == len(grid)
    assert make_plan(grid, there).count("complete") == len(grid)
    for cell in grid:
        mine, theirs = weights(here, cell.run_id), weights(there, cell.run_id)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    made = [tables.metric_table(tables.make_report(study, grid, store)) for store in (here, there)]
    assert made[0] == made[1]


def test_what_fits_no_machine_is_said_at_once(cluster):
    grid = smoke_cells(load_study("ladder"))
    executor = RayExecutor(RayConfig(address=cluster.address, cpus=64))
    with pytest.raises(UserError, match="a run takes 64 CPUs, and no machine of the cluster"):
        executor.default_workers(grid)
