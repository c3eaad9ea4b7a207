"""A small COCO-format data set, recipes that train in a second, and one finished smoke grid."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.cli import main
from experiments.networks import build
from experiments.recipe import Recipe
from experiments.single import compose_recipe
from experiments.store import Store
from experiments.study import Cell, Study
from experiments.study_file import load_study
from experiments.tasks import datamodule
from experiments.weights import labels_of, write_weights
from tests.experiments.helpers import run_grid, smoke_cells

Run = Callable[..., tuple[int, str, str]]

TINY = [
    "model.backbone.width=0.0625",
    "model.backbone.endpoint_filters=8",
    "model.head.filters=8",
    "model.head.convs=1",
    "data.transform.side=64",
    "eval.batch_size=4",
    "model.postprocess.score_threshold=0.001",  # nothing that small gets sure of itself
]


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory):
    patch = pytest.MonkeyPatch()
    patch.setenv("SPINENET_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("WANDB_MODE", "disabled")
    yield
    patch.undo()


@pytest.fixture
def run(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line: its exit code, output and error."""

    def spinenet(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spinenet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return spinenet


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen training and six validation pictures with squares of two categories, ids 3 and 7."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "annotations").mkdir()
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    first = 0
    for split, count in (("train", 16), ("val", 6)):
        images, annotations = [], []
        for image_id in range(first, first + count):
            pixels = rng.integers(0, 60, (60, 80, 3), dtype=np.uint8)
            for k, category in enumerate((3, 7)):
                x, y, side = (int(v) for v in rng.integers((0, 0, 15), (40, 30, 30)))
                pixels[y : y + side, x : x + side] = (200, 90 * k, 30)
                box = {"image_id": image_id, "category_id": category, "bbox": [x, y, side, side]}
                extra = {"id": len(annotations) + 1, "area": side * side, "iscrowd": 0}
                annotations.append(box | extra)
            name = f"{image_id}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            images.append({"id": image_id, "file_name": name, "width": 80, "height": 60})
        first += count
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "orange"}]
        body = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(body))
    return folder


@pytest.fixture
def tiny_recipe(coco_folder: Path) -> Recipe:
    """Two epochs of two batches on the squares."""
    changes = [*TINY, "train.epochs=2", "train.batch_size=8"]
    return compose_recipe(
        "retinanet", profile="smoke", data=f"coco:{coco_folder}", changes=changes, seed=0
    )


@pytest.fixture(scope="session")
def weights_file(coco_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny detector that finds something, though nothing sensible, in most places."""
    recipe = compose_recipe(
        "retinanet", profile="smoke", data=f"coco:{coco_folder}", changes=TINY, seed=0
    )
    data = datamodule(recipe)
    data.prepare_data()
    data.setup("validate")
    model = build(recipe, data.num_classes)
    generator = torch.Generator().manual_seed(1)
    for subnet, std in ((model.head.classes, 60.0), (model.head.boxes, 1.0)):
        torch.nn.init.normal_(subnet.predict.weight, std=std, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_weights(path, model, recipe, labels_of(data))
    return path


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny classifier of the embedded digits that is sure of something."""
    changes = ["model.backbone.width=0.0625", "model.backbone.endpoint_filters=8"]
    recipe = compose_recipe("classifier", profile="smoke", data=None, changes=changes, seed=0)
    data = datamodule(recipe)
    data.prepare_data()
    data.setup("validate")
    model = build(recipe, data.num_classes)
    torch.nn.init.normal_(model.linear.weight, std=3.0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_weights(path, model, recipe, labels_of(data))
    return path


@pytest.fixture(scope="session")
def smoke_grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[Cell], Store]:
    """The ladder, run once at the smoke profile."""
    study, store = load_study("ladder"), Store(tmp_path_factory.mktemp("runs"))
    grid = smoke_cells(study)
    run_grid(study, grid, store)
    return study, grid, store
