"""What only a GPU can show: steps that never wait for it, runs that share it, compiled networks."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from experiments import capturing, training
from experiments.bench.detectors import Workload, draw, module_step
from experiments.executors import local, run_cells
from experiments.networks import build, compile_network
from experiments.recipe import Recipe
from experiments.runtime import Runtime
from experiments.single import compose_recipe
from experiments.store import Store
from experiments.study_file import load_study
from tests.experiments.helpers import smoke_cells

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LOAD = Workload(side=128, batch=4, objects=5, classes=11)


def smoke(name: str = "retinanet") -> Recipe:
    return compose_recipe(name, profile="smoke", data=None, changes=[], seed=None)


def test_a_step_of_training_never_waits_for_the_gpu():
    recipe = smoke()
    batch = draw(LOAD, "cuda").for_ours(masks=False)
    step = module_step(build(recipe, LOAD.classes).cuda(), recipe, "bf16", lambda: batch)
    for _ in range(3):
        step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [w for w in said if "synchronizing" in str(w.message)] == []


@pytest.mark.parametrize("name", ["retinanet", "mask-rcnn", "classifier"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_every_task_trains_on_the_gpu(name, precision, tmp_path):
    recipe = smoke(name)
    recipe = replace(recipe, train=replace(recipe.train, precision=precision))
    result = training.train(recipe, "0123456789ab", tmp_path, Runtime(wandb="disabled"))
    assert result.environment["accelerator"] == "gpu"
    assert result.environment["gpu"]


def test_runs_share_a_gpu(tmp_path):
    store, grid = Store(tmp_path), smoke_cells(load_study("ladder"))[:3]
    runtimes = {cell.run_id: Runtime(wandb="disabled") for cell in grid}
    run_cells(local, grid, store, runtimes, 3, lambda cell, event: None)
    assert [store.state(cell.run_id) for cell in grid] == ["complete"] * 3


def test_a_compiled_network_has_the_losses_of_the_plain_one():
    recipe = smoke()
    batch = draw(LOAD, "cuda").for_ours(masks=False)
    losses = []
    for compiled in (False, True):
        network = build(recipe, LOAD.classes).cuda()
        if compiled:
            compile_network(network)
        losses.append(network.losses(batch["image"], batch["boxes"], batch["labels"]).total.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(("name", "precision"), [("retinanet", "32"), ("mask-rcnn", "bf16")])
def test_captured_or_not_a_run_ends_with_the_same_weights(name, precision, tmp_path, monkeypatch):
    recipe = smoke(name)
    train = replace(recipe.train, epochs=2, precision=precision, frozen_norms=0.5, ema_decay=0.9)
    recipe, captures = replace(recipe, train=train), []
    capture = capturing.capture
    monkeypatch.setattr(capturing, "capture", lambda *a: captures.append(capture(*a)))
    ended = []
    for folder in ("captured", "plain"):
        training.train(recipe, "0123456789ab", tmp_path / folder, Runtime(wandb="disabled"))
        ended.append(load_file(tmp_path / folder / "weights.safetensors"))
        monkeypatch.setattr(capturing, "pays", lambda recipe, runtime: False)
    assert len(captures) == 2  # at the first step, and when the norms froze
    for key, value in ended[0].items():
        torch.testing.assert_close(value, ended[1][key], rtol=2e-2, atol=2e-3, msg=key)
