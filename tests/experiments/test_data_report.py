"""What is said of a user's own data before training on them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datamodules import open_data
from experiments.data_report import LEARNING_STEPS, Schedule, report_data
from experiments.single import compose_recipe


def test_the_report_tells_equal_anchors_once_and_says_what_to_set(coco_folder):
    changes = ["model.anchors.size=9", "data.transform.side=64"]
    recipe = compose_recipe(
        "retinanet", profile="smoke", data=f"coco:{coco_folder}", changes=changes, seed=0
    )
    source = open_data(recipe.data.source)
    lines = report_data(source, [recipe, replace(recipe, seed=1)]).lines()
    assert len(lines) == 5
    assert lines[0].endswith("16 training and 6 validation pictures, 32 and 12 objects")
    assert lines[1] == "classes: 2 by training objects: red 16, orange 16"
    assert "with model.anchors.size=9 at 64 pixels" in lines[3]
    assert "they fit badly; --set model.anchors.size=" in lines[3]


def test_the_report_tells_each_schedule_once_and_what_would_be_long_enough(coco_folder):
    short = compose_recipe(
        "retinanet",
        profile="smoke",
        data=f"coco:{coco_folder}",
        changes=["train.batch_size=4", "train.epochs=2"],
        seed=0,
    )
    enough = replace(short, train=replace(short.train, epochs=150))
    lines = report_data(
        open_data(short.data.source), [short, enough, replace(short, seed=1)]
    ).lines()
    assert [line for line in lines if line.startswith("schedule")] == [
        "schedule: 8 steps of 4 pictures in 2 epochs: too few to learn much from nothing; "
        "--set train.epochs=150 gives 600",
        "schedule: 600 steps of 4 pictures in 150 epochs",
    ]


def test_what_counts_as_long_enough_is_what_the_embedded_profile_takes():
    recipe = compose_recipe("retinanet", profile="embedded", data=None, changes=[], seed=0)
    pictures = recipe.data.source.train_images
    schedule = Schedule(pictures, recipe.train.batch_size, recipe.train.epochs)
    assert schedule.steps == LEARNING_STEPS
    assert schedule.better_epochs is None


@pytest.mark.parametrize(("pictures", "epochs"), [(299, 1), (30, 9), (1000, 3)])
def test_more_epochs_are_proposed_only_where_they_are_missing(pictures, epochs):
    schedule = Schedule(pictures, 10, epochs)
    better = schedule.better_epochs
    if better is None:
        assert schedule.steps >= LEARNING_STEPS / 2
    else:
        longer = replace(schedule, epochs=better)
        assert longer.better_epochs is None
        assert longer.steps >= LEARNING_STEPS > replace(schedule, epochs=better - 1).steps


def test_no_schedule_helps_where_no_batch_fits():
    assert Schedule(3, 8, 2).better_epochs is None
