"""Counts are kept, and never taken for those of another network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from datamodules import TransformConfig
from experiments import counting
from experiments.compose import from_tree, load_recipe
from experiments.counting import count_full_size, counts, full_size_counts
from experiments.recipe import Recipe
from experiments.study_file import load_study
from spinenet.counts import Complexity

NEARLY = counting._text(Complexity(85.0, 28.5, {})).replace("85.0", "86.0")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINENET_CACHE", str(tmp_path))
    return tmp_path / "counts"


@pytest.fixture
def recipe() -> Recipe:
    return from_tree(load_recipe("retinanet"), origin="retinanet")


def poison(cache: Path) -> None:
    """Replace what is kept by something else, to see whether it is read."""
    for path in cache.iterdir():
        path.write_text(counting._text(Complexity(1.0, 2.0, {})))


def test_a_network_is_counted_once(cache, recipe):
    first = counts(recipe)
    assert counts(recipe) == first
    poison(cache)
    assert counts(recipe) == Complexity(1.0, 2.0, {})


def test_another_side_head_or_model_is_another_count(cache, recipe):
    counts(recipe)
    poison(cache)
    wider = replace(recipe.model, backbone=replace(recipe.model.backbone, width=0.5))
    small = replace(recipe.data, transform=TransformConfig(side=256))
    for changed in (replace(recipe, model=wider), replace(recipe, data=small)):
        assert counts(changed).macs_b != 1.0
    assert counts(recipe, num_classes=3).macs_b != 1.0


def test_other_sources_or_libraries_count_anew(cache, recipe, monkeypatch):
    counts(recipe)
    poison(cache)
    monkeypatch.setattr(counting, "_makers", lambda: "another commit")
    assert counts(recipe).macs_b == pytest.approx(85.28, abs=0.01)


@pytest.mark.parametrize("content", ["", "{", NEARLY, "[]", "[" * 5000])
def test_a_damaged_file_is_counted_anew(cache, recipe, content):
    expected = counts(recipe)
    for path in cache.iterdir():
        path.write_text(content)
    assert counts(recipe) == expected


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path, recipe, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SPINENET_CACHE", str(blocked))
    assert counts(recipe).macs_b == pytest.approx(85.28, abs=0.01)


def test_many_are_counted_in_order_whatever_is_known_already(cache):
    study = load_study("ladder")
    models = [(study, variant) for variant in study.published]
    expected = count_full_size(models)
    for path in sorted(cache.iterdir())[::2]:
        path.unlink()
    assert count_full_size(models, processes=2) == expected


def test_the_networks_of_studies_are_counted_when_they_are_new(cache):
    studies, told = {"ladder": load_study("ladder")}, []
    made = full_size_counts(studies, told.append)
    assert made["ladder/spinenet-49"].macs_b == pytest.approx(85.28, abs=0.01)
    assert full_size_counts(studies, told.append) == made
    next(cache.iterdir()).unlink()
    assert full_size_counts(studies, told.append) == made
    assert told == [len(made), 1]
