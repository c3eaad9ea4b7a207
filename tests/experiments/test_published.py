"""The profile `paper`: every shipped study at the schedule of its printed rows, and it trains."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from datamodules import CocoFolderConfig, DataSourceConfig, ImageFolderConfig, INaturalistConfig
from experiments.assembly import Hold, make_trainer
from experiments.compose import Changes, from_tree
from experiments.networks import build
from experiments.optimizer import schedule
from experiments.recipe import Recipe
from experiments.runtime import Runtime
from experiments.stopping import Stop
from experiments.study import Cell, Selection, Study, Variant, cells, own_source, variant_tree
from experiments.study_file import load_profile, load_study, shipped_studies
from experiments.tasks import datamodule, make_module
from tests.experiments.published_data import write_coco, write_imagenet, write_inaturalist

PUBLISHED = json.loads((Path(__file__).parents[1] / "reference" / "schedules.json").read_text())
STUDIES = [load_study(name) for name in shipped_studies()]
VARIANTS = [(study, variant) for study in STUDIES for variant in study.published]
PAPER = load_profile("paper")
STEPS_PER_EPOCH = {"retinanet": 463, "mask-rcnn": 463, "classifier": 312}  # of the whole batches


def name_of(value: Any) -> str:
    return value.id if isinstance(value, Study | Variant) else ""


def recipe_of(study: Study, variant: Variant) -> Recipe:
    return from_tree(variant_tree(study, variant, PAPER), origin=study.id)


def published(study: Study, variant: Variant) -> dict[str, Any]:
    """What is published of a row's training."""
    name = f"{study.id}/{variant.id}"
    return next(e for e in PUBLISHED if any(fnmatch(name, v) for v in e["variants"]))


@pytest.mark.parametrize(("study", "variant"), VARIANTS, ids=name_of)
def test_every_row_has_its_published_training(study, variant):
    recipe, expected = recipe_of(study, variant), published(study, variant)
    optim, layers = recipe.optim, recipe.model.layers
    assert (recipe.train.epochs, recipe.train.batch_size) == (expected["epochs"], expected["batch"])
    assert recipe.lr == pytest.approx(expected["lr"])
    assert optim.warmup_epochs == expected["warmup_epochs"]
    assert (optim.name, optim.momentum) == ("sgd", 0.9)
    assert optim.weight_decay == expected["weight_decay"]
    assert optim.clip_norm == expected["clip_norm"]
    assert layers.stochastic_depth == expected["stochastic_depth"]
    assert layers.activation == expected.get("activation", variant.id.replace("-", "_"))
    if recipe.model.kind == "classifier":
        assert recipe.model.label_smoothing == expected["label_smoothing"]
        assert (layers.bn_momentum, layers.bn_epsilon, layers.sync_bn) == (0.1, 1e-5, False)
        assert recipe.data.transform.side == 224
    else:
        assert list(recipe.data.transform.scale_jitter) == expected["jitter"]
        assert (layers.bn_momentum, layers.sync_bn) == (0.01, True)
        assert recipe.model.loss.normalizer == "replica"
    assert recipe.train.precision == expected.get("precision", "bf16")
    assert recipe.deviates == ()


@pytest.mark.parametrize(("study", "variant"), VARIANTS, ids=name_of)
def test_the_rate_is_that_of_the_published_steps(study, variant):
    recipe, expected = recipe_of(study, variant), published(study, variant)
    epochs = recipe.train.epochs
    per_epoch = (
        expected["steps"] // epochs if "steps" in expected else STEPS_PER_EPOCH[kind(recipe)]
    )
    factor = schedule(recipe.optim, steps_per_epoch=per_epoch, epochs=epochs)

    def lr(step: float) -> float:
        return recipe.lr * factor(int(step))

    warm = 5 * per_epoch
    assert lr(0) < 0.001 * expected["lr"]
    assert lr(warm / 2) == pytest.approx(expected["lr"] / 2, rel=1e-3)
    assert lr(warm) == pytest.approx(expected["lr"])
    if kind(recipe) == "classifier":
        assert lr((warm + epochs * per_epoch) / 2) == pytest.approx(0.8, rel=1e-3)
        assert lr(epochs * per_epoch) == pytest.approx(0, abs=1e-9)
        return
    before_end = expected.get("decays_before_end", ())
    decays = expected.get("decays") or [(epochs - b) * per_epoch for b in before_end]
    for k, step in enumerate(decays):
        assert lr(step - 1) == pytest.approx(expected["lr"] * 0.1**k)
        assert lr(step) == pytest.approx(expected["lr"] * 0.1 ** (k + 1))
    assert lr(epochs * per_epoch - 1) == pytest.approx(expected["lr"] * 0.01)


def kind(recipe: Recipe) -> str:
    return recipe.model.kind


SMALL_BACKBONE = {"model.backbone.width": 0.0625, "train.batch_size": 2}
SMALL_PYRAMID = {"model.backbone.endpoint_filters": 8, "data.transform.side": 128}
SMALL_REGIONS = {"candidates_train": 50, "candidates_test": 50, "proposals": 20}
SMALL: dict[str, dict[str, Any]] = {
    "retinanet": SMALL_PYRAMID | {"model.head.filters": 8},
    "mask-rcnn": SMALL_PYRAMID
    | {"model.rpn": {"filters": 8} | SMALL_REGIONS}
    | {"model.rois.samples": 16, "model.box": {"filters": 8, "fc": 16}, "model.mask.filters": 8},
    # At 64 a convolution of stride 2 meets a map of one cell, where oneDNN's gradient in bf16 is
    # not to be trusted: it reads memory that nothing has written.
    "classifier": {"data.transform.side": 128},
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[DataSourceConfig]:
    folder = tmp_path_factory.mktemp("published")
    return [
        CocoFolderConfig(root=str(write_coco(folder / "coco"))),
        ImageFolderConfig(root=str(write_imagenet(folder / "imagenet"))),
        INaturalistConfig(root=str(write_inaturalist(folder / "inaturalist"))),
    ]


class AfterOneStep(Callback):
    """Ends training at the first step, and keeps its learning rate and the weights before it."""

    lr = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]
        self.before = [p.detach().clone() for p in pl_module.parameters()]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = True
        trainer.limit_val_batches = 0


def small_cells(study: Study, sources: list[DataSourceConfig]) -> list[Cell]:
    """The study's different recipes, each network shrunk, its schedule kept."""
    known = recipe_of(study, study.published[0]).model
    changes = SMALL_BACKBONE | SMALL[known.kind]
    if study.id == "mobile":
        changes |= {"model.backbone.width": 0.25}
    selection = Selection(PAPER, 1, own_source(study, sources), (Changes(changes, "test"),))
    return list({cell.run_id: cell for cell in cells(study, selection)}.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("study", STUDIES, ids=name_of)
def test_every_recipe_trains_a_step_on_the_published_layouts(study, sources, tmp_path):
    torch.set_num_threads(1)
    for cell in small_cells(study, sources):
        recipe, expected = cell.recipe, published(study, study.variants[cell.variant])
        assert recipe.train.epochs == expected["epochs"]
        assert recipe.lr == pytest.approx(expected["lr"] * 2 / expected["batch"])
        assert recipe.deviates == ("batch",)
        data = datamodule(recipe)
        data.prepare_data()
        data.setup("fit")
        module = make_module(build(recipe, data.num_classes), recipe, data)
        stop = AfterOneStep()
        folder = tmp_path / cell.run_id
        folder.mkdir()
        hold = Hold(folder, None, Stop())
        trainer, _ = make_trainer(recipe, hold, Runtime("cpu"), data, [stop], [])
        trainer.fit(module, datamodule=data)
        assert trainer.global_step == 1
        steps = data.batches_per_epoch * expected["warmup_epochs"]
        assert stop.lr == pytest.approx(recipe.lr / (steps + 1))
        after = list(module.parameters())
        assert all(torch.isfinite(p).all() for p in after)
        assert any(not torch.equal(p, q) for p, q in zip(after, stop.before, strict=True))
