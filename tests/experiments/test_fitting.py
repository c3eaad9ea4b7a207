"""How well anchors fit is what trying every anchor says, and what is proposed does better."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules import CocoFolderConfig, open_data
from datamodules.survey import placed_boxes
from experiments.fitting import Anchoring, anchoring, best_overlap, fit
from experiments.single import compose_recipe
from spinenet.detection.anchors import anchor_boxes
from spinenet.detection.config import AnchorConfig
from spinenet.detection.matching import pairwise_iou


@pytest.mark.parametrize("side", [96, 130])
@pytest.mark.parametrize("config", [AnchorConfig(), AnchorConfig(size=1.7, scales=1)])
def test_the_best_overlap_is_the_largest_over_all_anchors(side, config):
    rng = np.random.default_rng(side)
    low = rng.uniform(0, side - 2, (300, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, side - low)], axis=1)
    anchors = Anchoring("", config, "tf2", side, (3, 4, 6))
    every = anchor_boxes(config, "tf2", (side, side), (3, 4, 6)).double()
    expected = pairwise_iou(torch.from_numpy(boxes)[None], every)[0].amax(dim=1)
    np.testing.assert_allclose(best_overlap(boxes, anchors), expected.numpy(), atol=1e-6)


def test_a_recipes_anchors_are_its_networks():
    detector = compose_recipe("retinanet", profile="embedded", data=None, changes=[], seed=0)
    assert anchoring(detector) == Anchoring(
        "model.anchors.size", AnchorConfig(size=2.0), detector.model.layers.flavor, 128
    )
    two_stage = compose_recipe("mask-rcnn", profile=None, data=None, changes=[], seed=0)
    assert anchoring(two_stage).key == "model.rpn.anchors.size"
    assert anchoring(two_stage).config == two_stage.model.rpn.anchors
    assert (
        anchoring(compose_recipe("classifier", profile=None, data=None, changes=[], seed=0)) is None
    )


def index_of(coco_folder):
    return open_data(CocoFolderConfig(root=str(coco_folder))).index("train")


def test_fitting_anchors_are_left_alone(coco_folder):
    found = fit(index_of(coco_folder), Anchoring("k", AnchorConfig(size=2.0), "tf2", 64))
    assert found.share > 0.9
    assert (found.better_size, found.better_side, found.better_share) == (None, None, None)


def test_a_proposal_does_what_it_says(coco_folder):
    index = index_of(coco_folder)
    large = Anchoring("k", AnchorConfig(size=9.0), "tf2", 64)
    found = fit(index, large)
    assert found.share < 0.5
    assert found.better_side == 64
    again = fit(index, large.resized(found.better_size, 64))
    assert again.share == found.better_share > 0.9


def test_objects_too_small_for_any_anchor_need_more_pixels(coco_folder):
    index = index_of(coco_folder)
    found = fit(index, Anchoring("k", AnchorConfig(), "tf2", 8))
    assert found.better_side in (16, 32)
    larger = Anchoring("k", AnchorConfig(size=found.better_size), "tf2", found.better_side)
    assert fit(index, larger).share == found.better_share


def test_no_input_beyond_the_papers_largest_is_proposed(coco_folder, monkeypatch):
    index = index_of(coco_folder)
    small = Anchoring("k", AnchorConfig(), "tf2", 8)
    monkeypatch.setattr("experiments.fitting.LARGEST_SIDE", 16)
    assert fit(index, small).better_side <= 16


def test_of_many_objects_some_are_looked_at(coco_folder, monkeypatch):
    index = index_of(coco_folder)
    anchors = Anchoring("k", AnchorConfig(size=1.5), "tf2", 64)
    matched = best_overlap(placed_boxes(index, 64), anchors) >= 0.5
    assert fit(index, anchors).share == matched.mean()
    monkeypatch.setattr("experiments.fitting.MOST_OBJECTS", 5)
    some = fit(index, anchors).share
    assert some * 5 == round(some * 5)
    assert some == fit(index, anchors).share  # the same ones each time
