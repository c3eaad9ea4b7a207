"""Faults of the machine, injected: what the user reads, what survives, and that the run goes on."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import get_worker_info

from datamodules import DataError, DetectionDataset
from experiments.checkpoints import latest
from experiments.executors.local import _death
from experiments.faults import (
    DiskFullError,
    Moment,
    NotWritableError,
    WorkerDiedError,
    of_loading,
    of_storage,
    out_of_memory,
)
from experiments.memory import Room
from experiments.module import DetectionModule
from experiments.recipe import Recipe
from experiments.runtime import Runtime
from experiments.single import compose_recipe, train_one
from experiments.store import read_failure, read_result
from experiments.training import train
from spinenet.yaml_text import YamlError, parse

QUIET = Runtime(accelerator="cpu", wandb="disabled")
RUN = "0123456789ab"
RESULTS = Path(__file__).parents[2] / "results" / "embedded"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", place], check=False)
    if done.returncode:
        pytest.skip("this user cannot mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path, spared: int) -> Path:
    """Leave so many bytes on the disk; the file that takes the rest."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            file.truncate(max(0, file.tell() - spared))
    return filler


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def assert_goes_on(recipe: Recipe, folder: Path, undisturbed: Path) -> None:
    """The same call ends as the run that nothing happened to."""
    train(recipe, RUN, undisturbed, QUIET)
    train(recipe, RUN, folder, QUIET)
    assert read_failure(folder) is None
    mine, theirs = weights(folder), weights(undisturbed)
    assert all(torch.equal(mine[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("spared", [0, 2**16])
def test_a_full_disk_keeps_the_last_whole_epoch(tiny_recipe, disk, tmp_path, monkeypatch, spared):
    begin = DetectionModule.on_train_epoch_start

    def fill_up(self: DetectionModule) -> None:
        if self.current_epoch == 1:
            fill(disk, spared)
        begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "on_train_epoch_start", fill_up)
        with pytest.raises(DiskFullError) as caught:
            train(tiny_recipe, RUN, disk / "run", QUIET)
    assert str(disk) in str(caught.value)
    assert "no space is left on this disk; what was finished is kept" in str(caught.value)
    path, _ = latest(disk / "run")
    assert torch.load(path, weights_only=True)["epoch"] == 0
    (disk / "filler").unlink()
    assert_goes_on(tiny_recipe, disk / "run", tmp_path / "undisturbed")


def test_a_disk_that_is_full_at_the_end_costs_only_the_end(
    tiny_recipe, disk, tmp_path, monkeypatch
):
    final = DetectionModule.final

    def fill_up(self: DetectionModule):
        fill(disk, 2**15)
        return final(self)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "final", fill_up)
        with pytest.raises(DiskFullError, match="no space is left"):
            train(tiny_recipe, RUN, disk / "run", QUIET)
    assert read_result(disk / "run") is None
    (disk / "filler").unlink()
    assert_goes_on(tiny_recipe, disk / "run", tmp_path / "undisturbed")


def test_a_file_that_takes_nothing_is_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, open("/dev/full", "w") as file:
        file.write("x" * 10**6)
    found = of_storage(caught.value, tmp_path)
    assert isinstance(found, DiskFullError)
    assert str(found).startswith(f"{tmp_path}: no space is left on this disk")


def test_runs_on_a_read_only_disk_are_shown_and_not_begun(run, disk, coco_folder):
    runs = disk / "runs"
    shutil.copytree(RESULTS, runs)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, out, _ = run("table", "ladder", "--runs", runs)
    assert code == 0
    assert "R50-FPN" in out
    smoke = ("--profile", "smoke")
    for command in (
        ("reproduce", "ladder", "--profile", "smoke", "--runs", runs),
        ("train", "retinanet", *smoke, "--data", f"coco:{coco_folder}", "--runs", runs),
        ("table", "ladder", "--runs", runs, "--figure", runs / "figure.svg"),
    ):
        code, _, err = run(*command)
        assert code == 2, err
        assert "Read-only file system" in err
        assert str(runs) in err
        assert "Traceback" not in err


def test_a_folder_of_somebody_else_is_not_written(run, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    code, _, err = run("reproduce", "ladder", "--profile", "smoke", "--runs", tmp_path / "runs")
    assert code == 2
    assert "Permission denied; allow it, or choose another folder with --runs" in err


def test_a_file_in_the_place_of_the_runs_is_named(run, tmp_path):
    place = tmp_path / "runs"
    place.write_text("")
    code, _, err = run("reproduce", "ladder", "--profile", "smoke", "--runs", place)
    assert code == 2
    assert str(place) in err
    assert "Traceback" not in err


def test_a_killed_data_worker_is_named_and_the_run_goes_on(tiny_recipe, tmp_path, monkeypatch):
    sample = DetectionDataset.__getitem__

    def killed(self: DetectionDataset, key: tuple[int, int]):
        if get_worker_info() is not None and key[0] == 1 and self.train:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionDataset, "__getitem__", killed)
        with pytest.raises(WorkerDiedError) as caught:
            train(tiny_recipe, RUN, tmp_path / "run", replace(QUIET, num_workers=2))
    assert "a process that loads data was ended" in str(caught.value)
    assert "load with fewer --workers" in str(caught.value)
    assert_goes_on(tiny_recipe, tmp_path / "run", tmp_path / "undisturbed")


def test_shared_memory_that_runs_out_is_told_from_a_full_disk():
    said = (
        "unable to write to file </torch_1_2>: No space left on device (28) of shared memory (shm)"
    )
    found = of_loading(RuntimeError(said))
    assert isinstance(found, WorkerDiedError)
    assert "--shm-size" in str(found)
    assert of_loading(RuntimeError("anything else")) is None
    assert of_storage(RuntimeError("anything else")) is None


@pytest.fixture
def own_squares(coco_folder: Path, tmp_path: Path) -> Path:
    """The squares, for this test to damage."""
    return Path(shutil.copytree(coco_folder, tmp_path / "squares"))


def on(squares: Path, recipe: Recipe, on_error: str = "raise") -> Recipe:
    source = replace(recipe.data.source, root=str(squares))
    return replace(recipe, data=replace(recipe.data, source=source, on_error=on_error))


def test_a_picture_that_breaks_while_training_is_named_by_its_worker(
    tiny_recipe, own_squares, tmp_path, monkeypatch
):
    monkeypatch.setattr("datamodules.detection.CACHE_LIMIT_BYTES", 0)
    (own_squares / "images" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        train(on(own_squares, tiny_recipe), RUN, tmp_path / "run", replace(QUIET, num_workers=2))
    said = str(caught.value)
    assert said.startswith(f"{own_squares / 'images' / '3.png'} (image 3 in ")
    assert "Traceback" not in said
    assert "\n" not in said


def test_damaged_pictures_are_left_out_counted_and_shown(tiny_recipe, own_squares, tmp_path):
    for name in ("3.png", "17.png"):  # one of training, one of validation
        (own_squares / "images" / name).write_bytes(b"no picture")
    recipe = on(own_squares, tiny_recipe, "skip")
    result = train(recipe, RUN, tmp_path / "run", QUIET)
    assert result.left_out == {"train": 1, "val": 1}
    assert result.deviates[-1] == "2 damaged pictures left out"
    assert result.images_seen == 2 * 8  # one batch of 15 pictures, twice
    assert result.recipe["data"]["on_error"] == "skip"
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"left out of train: {own_squares / 'images' / '3.png'} (image 3 in" in log
    assert read_result(tmp_path / "run").left_out == result.left_out


def test_tables_say_that_pictures_were_left_out(run, tmp_path):
    runs = Path(shutil.copytree(RESULTS, tmp_path / "runs"))
    path = next(runs.glob("r0-sp53-digits-s0-b6*")) / "result.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {"deviates": ["2 damaged pictures left out"]}))
    code, out, _ = run("table", "ladder", "--runs", runs, "--markdown")
    assert code == 0
    assert "deviates: 2 damaged pictures left out" in out


def test_data_are_left_out_by_the_command_line(run, own_squares, tmp_path):
    (own_squares / "images" / "3.png").write_bytes(b"no picture")
    asked = ["train", "retinanet", "--profile", "smoke", "--data", f"coco:{own_squares}"]
    asked += ["--set", "data.transform.side=64", "--set", "model.backbone.width=0.0625"]
    asked += ["--runs", tmp_path / "runs", "--json"]
    code, _, err = run(*asked)
    assert code == 2
    assert "3.png" in err
    code, out, err = run(*asked, "--set", "data.on_error=skip")
    assert code == 0, err
    assert read_result(Path(json.loads(out)["folder"])).left_out == {"train": 1}


def test_a_parts_gradients_add_up_to_the_batchs(tmp_path):
    """With norms as they are, and a loss that is a mean over pictures, parts change nothing."""
    changes = ["model.backbone.width=0.0625", "model.backbone.endpoint_filters=8"]
    changes += ["train.frozen_norms=1.0", "train.epochs=2", "train.batch_size=8"]
    whole, parts = (
        compose_recipe(
            "classifier",
            profile="smoke",
            data=None,
            changes=[*changes, f"train.accumulate={n}"],
            seed=0,
        )
        for n in (1, 4)
    )
    (one, a), (other, b) = (train_one(recipe, tmp_path, QUIET) for recipe in (whole, parts))
    assert a.run_id != b.run_id
    assert "accumulate" not in a.deviates
    assert "accumulate" in b.deviates
    assert a.images_seen == b.images_seen
    assert last_step(one) == last_step(other)
    mine, theirs = weights(one), weights(other)
    for key, value in mine.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=1e-4)


def last_step(folder: Path) -> int:
    return json.loads((folder / "history.jsonl").read_text().splitlines()[-1])["step"]


def test_storage_is_named_where_the_error_names_nothing(tmp_path):
    full = of_storage(OSError(28, "No space left on device"), tmp_path)
    assert isinstance(full, DiskFullError)
    assert str(full).startswith(f"{tmp_path}: no space is left")
    denied = of_storage(PermissionError(13, "Permission denied", "/x/y"), tmp_path)
    assert isinstance(denied, NotWritableError)
    assert str(denied).startswith("/x/y: Permission denied; allow it")


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
LAUGHS = "a0: &a0 [lol]\n" + LAUGHS
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def pieces() -> set[str]:
    """Every piece of text in the code."""
    packages = ("spinenet", "datamodules", "experiments")
    paths = [p for name in packages for p in PAGE.parents[1].glob(f"{name}/**/*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_the_page_has_the_words_that_are_said(tiny_recipe):
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, batch_size=16))
    side = replace(recipe.data.transform, side=640)
    recipe = replace(recipe, data=replace(recipe.data, transform=side))
    said = {str(out_of_memory(recipe, Moment("training", 7, 0), Room(16, 4, False)))}
    said |= {
        _death(-signal.SIGKILL, Path("output.log")),
        os.strerror(errno.EROFS),
        os.strerror(errno.EACCES),
    }
    for bomb in ("!!python/name:os.system", "[" * 50 + "]" * 50, LAUGHS):
        with pytest.raises(YamlError) as caught:
            parse(bomb)
        said.add(str(caught.value))
    said |= pieces()
    fragments = [part for row in rows for part in re.findall("`([^`]+)`", row.split("|")[2])]
    assert len(fragments) > 15
    unsaid = [part for part in fragments if not any(part in text for text in said)]
    assert unsaid == []
