"""A result says what it was made from, by which code, where: enough to make it again."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from experiments import code_version
from experiments.compose import from_tree
from experiments.provenance import environment, memory_gib
from experiments.runtime import Runtime
from experiments.store import read_result
from experiments.training import train

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_result_has_all_that_it_came_from(tiny_recipe, tmp_path):
    train(tiny_recipe, "0123456789ab", tmp_path, Runtime(accelerator="cpu", wandb="disabled"))
    result = read_result(tmp_path)
    facts = result.environment
    assert from_tree(result.recipe, origin="result") == tiny_recipe
    assert result.seed == tiny_recipe.seed
    assert len(result.data_fingerprint) == 64
    assert facts == json.loads((tmp_path / "environment.json").read_text())
    assert facts["accelerator"] == "cpu"
    assert facts["code"] == code_version.code_digest()
    assert facts["commit"] == (git("rev-parse", "HEAD") or "unknown")
    assert facts["dirty"] == bool(git("status", "--porcelain", "--untracked-files=no"))


def test_the_environment_names_what_numbers_hang_on():
    facts = environment()
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"] == version("torch")
    assert facts["packages"]["numpy"] == np.__version__
    assert {"torchvision", "timm", "pytorch-lightning", "pillow", "scikit-learn"} <= set(
        facts["packages"]
    )
    assert facts["memory_gib"] == memory_gib() > 0
    assert facts["cores"] > 0
    assert (facts["gpu"] is None) == (not torch.cuda.is_available())
    assert (facts["cuda"] is None) == (facts["gpu"] is None)


def test_an_edit_is_seen_in_the_hash_of_the_code(monkeypatch):
    before = environment()["code"]
    edited = code_version.SOURCES | {"spinenet/blocks.py": "other"}
    monkeypatch.setattr(code_version, "SOURCES", edited)
    assert environment()["code"] != before
