"""One run: determinism, resuming, failing, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file
from torch import nn

from experiments import training
from experiments.callbacks import _MovingAverage, moving_average
from experiments.checkpoints import latest
from experiments.errors import UserError
from experiments.leases import lock
from experiments.module import DetectionModule, NonFiniteLossError
from experiments.networks import build, compile_network
from experiments.recipe import Recipe
from experiments.runtime import Runtime
from experiments.single import compose_recipe, evaluate_weights, train_one
from experiments.store import Store, read_result
from experiments.training import train
from experiments.weights import read_weights

QUIET = Runtime(accelerator="cpu", wandb="disabled")


def run(recipe: Recipe, folder: Path, runtime: Runtime = QUIET) -> dict[str, torch.Tensor]:
    train(recipe, "0123456789ab", folder, runtime)
    return load_file(folder / "weights.safetensors")


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different


def test_same_recipe_gives_identical_weights_with_any_number_of_workers(tiny_recipe, tmp_path):
    first = run(tiny_recipe, tmp_path / "a")
    assert_equal(first, run(tiny_recipe, tmp_path / "b"))
    assert_equal(first, run(tiny_recipe, tmp_path / "c", replace(QUIET, num_workers=2)))


def test_another_seed_gives_other_weights(tiny_recipe, tmp_path):
    first = run(tiny_recipe, tmp_path / "a")
    second = run(replace(tiny_recipe, seed=1), tmp_path / "b")
    assert not torch.equal(first["backbone.stem.conv.weight"], second["backbone.stem.conv.weight"])


@pytest.mark.parametrize(
    ("train_changes", "layer_changes"),
    [
        ({}, {}),
        ({"ema_decay": 0.9}, {}),
        ({"frozen_norms": 0.5}, {}),
        ({}, {"stochastic_depth": 0.5, "drop_block": 0.1}),
    ],
)
def test_a_killed_run_resumes_to_the_same_weights(
    tiny_recipe, tmp_path, monkeypatch, train_changes, layer_changes
):
    layers = replace(tiny_recipe.model.layers, **layer_changes)
    recipe = replace(
        tiny_recipe,
        train=replace(tiny_recipe.train, epochs=3, **train_changes),
        model=replace(tiny_recipe.model, layers=layers),
    )
    undisturbed = run(recipe, tmp_path / "a")
    begin = DetectionModule.on_train_epoch_start

    def die(self: DetectionModule) -> None:
        if self.current_epoch == 1:
            raise SystemExit(9)
        begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "on_train_epoch_start", die)
        with pytest.raises(SystemExit):
            run(recipe, tmp_path / "b")
    assert latest(tmp_path / "b") is not None
    assert_equal(undisturbed, run(recipe, tmp_path / "b"))
    assert history(tmp_path / "a") == history(tmp_path / "b")


def test_frozen_norms_keep_their_statistics_over_the_last_steps(tiny_recipe, tmp_path, monkeypatch):
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, epochs=2, frozen_norms=0.5))
    seen = []
    step = DetectionModule.training_step

    def watched(self: DetectionModule, batch: dict, index: int) -> torch.Tensor:
        loss = step(self, batch, index)
        norm = self.model.backbone.stem.norm
        seen.append((norm.training, norm.running_mean.clone()))
        return loss

    monkeypatch.setattr(DetectionModule, "training_step", watched)
    run(recipe, tmp_path)
    half = len(seen) // 2
    assert [training for training, _ in seen] == [True] * half + [False] * half
    assert all(torch.equal(mean, seen[half - 1][1]) for _, mean in seen[half:])
    assert not torch.equal(seen[0][1], seen[half - 1][1])


@pytest.mark.parametrize(
    ("name", "metrics", "file"),
    [
        ("retinanet", {"AP", "AP50"}, "detections.json"),
        ("mask-rcnn", {"AP", "mask/AP", "mask/AP50"}, "detections.json"),
        ("classifier", {"top1", "top5"}, "ranks.json"),
    ],
)
def test_every_task_trains_and_its_weights_evaluate_to_the_same_scores(
    name, metrics, file, tmp_path
):
    recipe = compose_recipe(name, profile="smoke", data=None, changes=[], seed=None)
    folder, result = train_one(recipe, tmp_path, Runtime(wandb="disabled"))
    assert metrics <= set(result.metrics)
    assert (folder / file).is_file()
    again, written = evaluate_weights(folder, None, None, 8)
    assert again == pytest.approx(result.metrics)
    assert (written / file).read_text() == (folder / file).read_text()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_killed_while_scoring_ends_with_the_same_weights(
    tiny_recipe, tmp_path, monkeypatch, ema
):
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, ema_decay=ema))
    undisturbed = run(recipe, tmp_path / "a")

    def die(*arguments: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "final", die)
        with pytest.raises(SystemExit):
            run(recipe, tmp_path / "b")
    assert_equal(undisturbed, run(recipe, tmp_path / "b"))


def test_a_finished_run_is_not_trained_again(tiny_recipe, tmp_path, monkeypatch):
    first = train(tiny_recipe, "0123456789ab", tmp_path / "a", QUIET)
    monkeypatch.setattr(training, "_train", lambda *arguments: pytest.fail("trained again"))
    again = train(tiny_recipe, "0123456789ab", tmp_path / "a", QUIET)
    assert again.metrics == first.metrics


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_the_moving_average_is_what_is_evaluated_and_kept(tiny_recipe, tmp_path):
    plain = run(tiny_recipe, tmp_path / "a")
    averaged = run(
        replace(tiny_recipe, train=replace(tiny_recipe.train, ema_decay=0.9)), tmp_path / "b"
    )
    key = "backbone.stem.conv.weight"
    assert not torch.equal(plain[key], averaged[key])
    assert set(plain) == set(averaged)


def test_the_moving_average_counts_as_torch_does_and_lies_where_the_network_will(
    tiny_recipe, tmp_path, monkeypatch
):
    seen, average = [], _MovingAverage._average

    def watched(self, averaged, current, count):
        seen.append((self._latest_update_step, int(count)))
        return average(self, averaged, current, count)

    monkeypatch.setattr(_MovingAverage, "_average", watched)
    run(replace(tiny_recipe, train=replace(tiny_recipe.train, ema_decay=0.9)), tmp_path / "a")
    assert seen
    assert all(ours == torchs for ours, torchs in seen)
    callback, network = moving_average(0.9), pl.LightningModule()
    network.layer = nn.Linear(1, 1)
    callback.setup(Mock(**{"strategy.root_device": torch.device("meta")}), network, "fit")
    assert {p.device.type for p in callback._average_model.parameters()} == {"meta"}


def test_a_non_finite_loss_stops_the_run_with_its_terms_and_keeps_the_last_checkpoint(
    tiny_recipe, tmp_path, monkeypatch
):
    step = DetectionModule.training_step

    def explode(self, batch, batch_index):
        loss = step(self, batch, batch_index)
        return loss * torch.inf if self.current_epoch == 1 else loss

    monkeypatch.setattr(DetectionModule, "training_step", explode)
    with pytest.raises(
        NonFiniteLossError, match=r"not finite at step 3.*loss/box.*lower optim\.lr"
    ):
        run(tiny_recipe, tmp_path / "a")
    assert latest(tmp_path / "a") is not None
    assert read_result(tmp_path / "a") is None
    assert Store(tmp_path).state("a") == "missing"
    failure = json.loads((tmp_path / "a" / "failure.json").read_text())
    assert failure["error"] == "NonFiniteLossError"
    assert "loss/classification" in failure["message"]


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_attempts(tiny_recipe, tmp_path):
    run(tiny_recipe, tmp_path / "a")
    whole = read_result(tmp_path / "a")
    assert whole.all_seconds == pytest.approx(whole.seconds)
    half = replace(whole, train_seconds=whole.train_seconds / 2)
    half = replace(half, seconds=whole.seconds - whole.train_seconds / 2)
    assert half.all_seconds == pytest.approx(whole.seconds)


def test_a_finished_run_says_all_about_itself(tiny_recipe, tmp_path):
    run(tiny_recipe, tmp_path / "a")
    result = read_result(tmp_path / "a")
    assert result is not None
    assert {"AP", "AP50", "AR100"} <= result.metrics.keys()
    assert result.images_seen == 32
    assert result.num_classes == 3
    assert result.environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert set(result.by_class) <= {"red", "orange"}
    assert "done: AP" in (tmp_path / "a" / "train.log").read_text()


def test_ap_is_that_of_pycocotools_on_the_written_detections(tiny_recipe, coco_folder, tmp_path):
    long = replace(tiny_recipe, train=replace(tiny_recipe.train, epochs=6))
    run(long, tmp_path / "a")
    truth = COCO(str(coco_folder / "annotations" / "instances_val.json"))
    rows = json.loads((tmp_path / "a" / "detections.json").read_text())
    if not rows:
        pytest.fail("the run found nothing, so there is nothing to compare")
    evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    result = read_result(tmp_path / "a")
    assert result is not None
    assert result.metrics["AP"] == pytest.approx(100 * evaluation.stats[0], abs=1e-6)
    metrics, _ = evaluate_weights(tmp_path / "a", None, tmp_path / "again", 4)
    assert metrics["AP"] == pytest.approx(result.metrics["AP"], abs=1e-6)


def test_one_run_is_not_trained_by_two_processes(tiny_recipe, tmp_path):
    with lock(tmp_path / "a"), pytest.raises(UserError, match="another process is training"):
        run(tiny_recipe, tmp_path / "a")


def test_weights_are_not_evaluated_on_other_classes(tiny_recipe, coco_folder, tmp_path):
    run(tiny_recipe, tmp_path / "a")
    other = tmp_path / "other"
    (other / "annotations").mkdir(parents=True)
    (other / "images").symlink_to(coco_folder / "images")
    for split in ("train", "val"):
        text = (coco_folder / "annotations" / f"instances_{split}.json").read_text()
        (other / "annotations" / f"instances_{split}.json").write_text(text.replace("red", "blue"))
    with pytest.raises(UserError, match=r"differ in .*blue.*same categories"):
        evaluate_weights(tmp_path / "a", f"coco:{other}", None, 4)


def test_weights_are_evaluated_on_a_validation_split_by_itself(
    weights_file, classifier_file, coco_folder, tmp_path
):
    boxes, classes = tmp_path / "boxes", tmp_path / "classes"
    shutil.copytree(coco_folder, boxes)
    (boxes / "annotations/instances_train.json").unlink()
    rng = np.random.default_rng(0)
    for label in read_weights(classifier_file).labels.values():
        folder = classes / "val" / label.name
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "a.png")
    for file, data in ((weights_file, f"coco:{boxes}"), (classifier_file, f"folder:{classes}")):
        _, written = evaluate_weights(file, data, tmp_path / "eval", 4)
        scores = json.loads((written / "scores.json").read_text())
        assert len(scores["data"]["fingerprint"]) == 64


def test_building_from_a_recipe_uses_its_seed(tiny_recipe):
    a, b = (build(tiny_recipe, 3).state_dict() for _ in range(2))
    assert_equal(a, b)


def test_a_compiled_network_has_the_same_losses_and_names(tiny_recipe):
    plain, compiled = build(tiny_recipe, 3), build(tiny_recipe, 3)
    compile_network(compiled, backend="aot_eager")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes, labels = torch.tensor([[[8.0, 8, 40, 50]]] * 2), torch.ones(2, 1, dtype=torch.long)
    found, expected = (m.losses(images, boxes, labels).total for m in (compiled, plain))
    torch.testing.assert_close(found, expected)
    assert compiled._compiled_call_impl is not None
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_recomputed_activations_give_the_same_weights(tiny_recipe, tmp_path):
    plain = run(tiny_recipe, tmp_path / "plain")
    saving = run(tiny_recipe, tmp_path / "saving", replace(QUIET, recompute=True))
    assert all(torch.equal(saving[name], value) for name, value in plain.items())
