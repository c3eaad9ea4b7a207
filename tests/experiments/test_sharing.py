"""A run shared by processes takes the steps of one process, and none of them outlives the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments import distributed
from experiments.assembly import read_data
from experiments.distributed import ProcessLostError, deviations, share, trainer_options
from experiments.errors import UserError
from experiments.module import NonFiniteLossError
from experiments.recipe import Recipe, TrainConfig
from experiments.runtime import Processes, Runtime
from experiments.single import compose_recipe
from experiments.store import read_record
from experiments.training import follow, train

ALONE = Runtime(accelerator="cpu", wandb="disabled")
SHARED = ("train.frozen_norms=1.0", "optim.name=sgd", "optim.lr=0.01", "train.epochs=3")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def on(devices: int) -> Runtime:
    return replace(ALONE, processes=Processes(devices=devices))


@pytest.fixture
def recipes(coco_folder: Path, tiny_recipe: Recipe) -> dict[str, Recipe]:
    """Six steps each, with norms that do not learn and an optimiser that magnifies no rounding."""
    optim = replace(tiny_recipe.optim, name="sgd", lr=0.01, momentum=0.9)
    train = replace(tiny_recipe.train, frozen_norms=1.0, epochs=3)
    small = ["model.backbone.width=0.0625", "model.backbone.endpoint_filters=8"]
    classifier = compose_recipe(
        "classifier", profile="smoke", data=None, changes=[*small, *SHARED], seed=0
    )
    return {"detector": replace(tiny_recipe, optim=optim, train=train), "classifier": classifier}


def losses(folder: Path) -> list[dict[str, float]]:
    """The terms of the loss at each step."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    terms = ({k: v for k, v in row.items() if k.startswith("loss/")} for row in rows)
    return [row for row in terms if row]


@pytest.mark.parametrize("task", ["detector", "classifier"])
def test_processes_together_do_what_one_does(recipes, tmp_path, monkeypatch, task):
    for chapter in ("assembly", "tracking"):
        monkeypatch.setattr(f"experiments.{chapter}.LOG_EVERY", 1)
    recipe, found = recipes[task], []
    for name, runtime in (("alone", ALONE), ("shared", on(2))):
        folder = tmp_path / name
        result = train(recipe, "0123456789ab", folder, runtime)
        found.append((result, load_file(folder / "weights.safetensors"), losses(folder)))
    (one, alone, history), (all_, shared, other) = found
    assert len(history) == len(other) >= 6
    for mine, theirs in zip(history, other, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-5)
    for key, value in alone.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-4, atol=1e-5)
    assert all_.images_seen == one.images_seen
    assert (all_.environment["processes"], all_.deviates) == (2, one.deviates)
    assert all_.environment["norms"] == "each process its own"
    assert "processes" not in one.environment
    said = (tmp_path / "shared" / "rank-1.log").read_text()
    assert "Error" not in said
    assert "Fatal" not in said


def test_a_second_machine_takes_its_share(recipes, tmp_path):
    recipe, port = recipes["detector"], distributed._free_port()
    spread = Processes(nodes=2, port=port)
    first, second = (replace(ALONE, processes=replace(spread, node=node)) for node in (0, 1))
    other = get_context("spawn").Process(target=follow, args=(recipe, tmp_path / "b", second))
    other.start()
    shared = train(recipe, "0123456789ab", tmp_path / "b", first)
    other.join(60)
    assert other.exitcode == 0
    assert (shared.environment["processes"], shared.environment["machines"]) == (2, 2)
    train(recipe, "0123456789ab", tmp_path / "a", ALONE)
    alone, both = (load_file(tmp_path / name / "weights.safetensors") for name in "ab")
    for key, value in alone.items():
        torch.testing.assert_close(both[key], value, rtol=1e-4, atol=1e-5)


def test_norms_that_learn_apart_are_labelled(recipes, tiny_recipe):
    assert deviations(tiny_recipe, on(2)) == ["norms"]
    assert deviations(tiny_recipe, replace(on(2), accelerator="gpu")) == []
    assert deviations(recipes["detector"], on(2)) == deviations(tiny_recipe, ALONE) == []


def test_a_batch_that_cannot_be_shared_is_refused(tiny_recipe, tmp_path):
    with pytest.raises(UserError, match=r"train\.batch_size 8 cannot be shared evenly by 3"):
        train(tiny_recipe, "0123456789ab", tmp_path, on(3))
    assert share(TrainConfig(batch_size=8), Processes(devices=2, nodes=2, port=1)) == 2


def test_more_processes_than_validation_pictures_are_refused(tiny_recipe):
    with pytest.raises(
        UserError, match=r"val\.json: 6 validation pictures, fewer than the 8 processes"
    ):
        read_data(tiny_recipe, on(8))


def test_norms_shared_by_recipe_need_gpus(tiny_recipe, tmp_path):
    layers = replace(tiny_recipe.model.layers, sync_bn=True)
    recipe = replace(tiny_recipe, model=replace(tiny_recipe.model, layers=layers))
    with pytest.raises(UserError, match=r"model\.layers\.sync_bn true: .*train in one process"):
        train(recipe, "0123456789ab", tmp_path, on(2))


def test_a_loss_that_is_no_number_stops_all_of_them(tiny_recipe, tmp_path):
    broken = replace(tiny_recipe, optim=replace(tiny_recipe.optim, lr=1e30))
    with pytest.raises(NonFiniteLossError):
        train(broken, "0123456789ab", tmp_path, on(2))
    failure = read_record(tmp_path).failure
    assert failure is not None
    assert failure.error == "NonFiniteLossError"


def test_a_lost_process_ends_the_run_with_its_words(tiny_recipe, tmp_path, monkeypatch):
    started, start = [], distributed._start

    def remember(*arguments):
        started.append(start(*arguments))
        return started[-1]

    monkeypatch.setattr(distributed, "_start", remember)
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, epochs=200))

    def kill(event):
        if event["kind"] == "step":
            started[0].process.kill()

    with pytest.raises(ProcessLostError, match="process 1 of the run ended with code -9"):
        train(recipe, "0123456789ab", tmp_path, on(2), kill)
    failure = read_record(tmp_path).failure
    assert failure is not None
    assert failure.error == "ProcessLostError"


def test_gpus_are_dealt_in_groups():
    four = Processes(devices=4)
    assert trainer_options(four, "gpu", 1)["devices"] == [4, 5, 6, 7]
    assert trainer_options(Processes(), "gpu", 3)["devices"] == [3]
    assert "strategy" not in trainer_options(Processes(), "cpu", 3)
    spread = Processes(devices=4, nodes=2, node=1, local=3, port=1)
    assert (spread.count, spread.rank) == (8, 7)
    with pytest.raises(ValueError, match="need the port"):
        Processes(nodes=2)
