"""Memory that runs out: under a real limit, a run says what fits, and what it says is so."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.faults import Moment, is_out_of_memory, out_of_memory
from experiments.memory import Room, parts
from experiments.recipe import Recipe, to_tree
from experiments.runtime import Runtime
from experiments.single import compose_recipe
from experiments.store import read_failure
from experiments.subprocesses import python
from experiments.training import train
from tests.experiments.conftest import TINY

LIMITED = """
import json, resource, sys
from pathlib import Path
import timm, torchvision
from experiments.compose import from_tree
from experiments.errors import UserError
from experiments.runtime import Runtime
from experiments.training import train

recipe = from_tree(json.loads(sys.argv[1]), origin="test")
size = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
limit = int(size.split()[1]) * 1024 + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
runtime = Runtime(accelerator="cpu", wandb="disabled", recompute=len(sys.argv) > 4)
try:
    train(recipe, "0123456789ab", Path(sys.argv[2]), runtime)
    print("trained")
except UserError as error:
    print(type(error).__name__, error)
"""


def limited(recipe: Recipe, folder: Path, spare: int, *more: str) -> str:
    """What a run says that has so many bytes beside what it has loaded."""
    return python(LIMITED, json.dumps(to_tree(recipe)), str(folder), str(spare), *more, threads=1)


@pytest.fixture
def hungry(coco_folder: Path) -> Recipe:
    """A step of the whole batch takes about a gigabyte."""
    changes = [*TINY, "train.epochs=1", "train.batch_size=16", "data.transform.side=512"]
    changes += ["eval.batch_size=1"]
    return compose_recipe(
        "retinanet", profile="smoke", data=f"coco:{coco_folder}", changes=changes, seed=0
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_run_out_of_memory_says_which_batch_fits(hungry, tmp_path):
    spare = 700 * 2**20
    said = limited(hungry, tmp_path / "run", spare)
    assert said.startswith("OutOfMemoryError out of memory in training at step 0 (epoch 0): ")
    assert "16 pictures of 512 pixels at once do not fit" in said
    fits = int(re.search(r"(\d+) do; ", said)[1])
    assert 1 <= fits < 16
    assert f"--set train.accumulate={16 // fits} keeps the batch of 16" in said
    assert f"--set train.batch_size={fits} lowers" in said
    assert read_failure(tmp_path / "run").error == "OutOfMemoryError"
    in_parts = replace(hungry, train=replace(hungry.train, accumulate=16 // fits))
    assert limited(in_parts, tmp_path / "parts", spare).strip() == "trained"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_out_of_memory_says_which_batch_fits(coco_folder, tmp_path):
    changes = [*TINY, "train.epochs=1", "train.batch_size=16", "data.transform.side=640"]
    recipe = compose_recipe(
        "retinanet",
        profile="smoke",
        data=f"coco:{coco_folder}",
        changes=[*changes, "model.backbone.width=1.0", "model.head.filters=256"],
        seed=0,
    )
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - 6 * 2**30, dtype=torch.uint8, device="cuda")  # of this process alone
    with pytest.raises(Exception, match=r"16 pictures of 640 pixels at once do not fit; \d+ do"):
        train(recipe, "0123456789ab", tmp_path, Runtime(wandb="disabled"))
    assert held.numel()


def test_parts_divide_the_batch_and_about_halve():
    assert parts(24) == [1, 3, 6, 12]
    assert parts(256) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert parts(7) == [1]
    assert parts(1) == []


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (
            Room(16, 4, True),
            ["--recompute makes room for 16", "train.accumulate=4", "in parts of 4"],
        ),
        (Room(16, 8, False), ["8 do", "train.accumulate=2", "train.batch_size=8"]),
        (Room(16, 0, False), ["not even one does", "lower data.transform.side"]),
    ],
)
def test_the_ways_out_are_those_that_were_tried(room, words, tiny_recipe):
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, batch_size=16))
    said = str(out_of_memory(recipe, Moment("training", 3, 1), room))
    assert said.startswith("out of memory in training at step 3 (epoch 1): 16 pictures of 64")
    assert all(word in said for word in words)


def test_validation_has_a_batch_of_its_own(tiny_recipe):
    said = str(out_of_memory(tiny_recipe, Moment("validation", 3, 1), None))
    assert "lower eval.batch_size, now 4, which changes no result" in said
    assert "--jobs 1" in str(out_of_memory(tiny_recipe, Moment(), None))


def test_what_allocators_raise_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
