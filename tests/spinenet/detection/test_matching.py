import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official_weights import load

from spinenet.detection.anchors import AnchorConfig, anchor_boxes
from spinenet.detection.matching import MatchConfig, assign, match, pairwise_iou
from spinenet.detection.rpn import RPNConfig, rpn_targets

OPERATIONS = load("operations")
ANCHORS = anchor_boxes(AnchorConfig(size=3), "tf2", (128, 128), (3, 4, 5, 6, 7))


@pytest.mark.parametrize(("case", "positives"), [("a", 68), ("c", 22), ("empty", 0), ("many", 317)])
def test_targets_are_the_model_gardens(case: str, positives: int):
    reference = {
        name: OPERATIONS[f"label_{case}_{name}"]
        for name in ("gt_boxes", "gt_classes", "cls_targets", "box_targets", "box_weights")
    }
    boxes = torch.from_numpy(reference["gt_boxes"])[None, :, [1, 0, 3, 2]]
    labels = torch.from_numpy(reference["gt_classes"])[None]
    targets = match(ANCHORS, boxes, labels, MatchConfig())
    classes = np.maximum(reference["cls_targets"], 0)  # theirs says -1 where ours says 0
    np.testing.assert_array_equal(targets.labels[0], classes)
    np.testing.assert_array_equal(targets.positive[0], reference["box_weights"] > 0)
    assert targets.positive.sum() == positives
    positive = targets.positive[0].numpy()
    codes = np.where(positive[:, None], reference["box_targets"], 0)  # ours are 0 off the positives
    np.testing.assert_allclose(targets.codes[0], codes, rtol=1e-5, atol=1e-5)


def test_anchors_go_to_the_boxes_that_the_model_gardens_matcher_gives_them():
    iou = torch.from_numpy(OPERATIONS["match_iou"].T.copy())[None]  # (1, boxes, anchors)
    found = assign(iou, torch.ones(1, 4, dtype=torch.bool), MatchConfig())
    positive = OPERATIONS["match_ind"] > 0
    np.testing.assert_array_equal(found.positive[0], positive)
    np.testing.assert_array_equal(found.owner[0][positive], OPERATIONS["match_idx"][positive])
    assert torch.equal(found.overlap, iou.amax(1))


@pytest.mark.parametrize(
    ("case", "negative_iou", "ignored"),
    [("a", 0.5, 0), ("b", 0.4, 113), ("c", 0.5, 0), ("empty", 0.5, 0), ("many", 0.5, 0)],
)
def test_the_first_stage_ignores_what_the_model_garden_ignores(
    case: str, negative_iou: float, ignored: int
):
    name = "label_a" if case == "b" else f"label_{case}"  # b has the boxes and positives of a
    boxes = torch.from_numpy(OPERATIONS[f"{name}_gt_boxes"])[None, :, [1, 0, 3, 2]]
    labels = torch.from_numpy(OPERATIONS[f"{name}_gt_classes"])[None]
    config = RPNConfig(
        positive_iou=0.5, negative_iou=negative_iou, samples=len(ANCHORS), positive_share=1.0
    )
    targets = rpn_targets(ANCHORS, boxes, labels, config)
    np.testing.assert_array_equal(targets.positive[0], OPERATIONS[f"{name}_box_weights"] > 0)
    np.testing.assert_array_equal(targets.sampled[0], OPERATIONS[f"label_{case}_cls_weights"] > 0)
    assert (~targets.sampled).sum() == ignored


def obvious_iou(a: list[float], b: list[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / max(union, 1e-8)


def obvious_match(anchors: list, boxes: list, labels: list, threshold: float) -> tuple[list, list]:
    """Labels and owners of `anchors` for one picture, from the definitions."""
    real = [m for m, label in enumerate(labels) if label > 0]
    owners: list[int | None] = []
    for anchor in anchors:
        overlaps = [(obvious_iou(boxes[m], anchor), -m) for m in real]
        best, first = max(overlaps, default=(0.0, 0))
        owners.append(-first if best >= threshold else None)
    for m in reversed(real):  # of two boxes that claim one anchor, the first has the last word
        overlaps = [obvious_iou(boxes[m], anchor) for anchor in anchors]
        owners[overlaps.index(max(overlaps))] = m
    return [0 if m is None else labels[m] for m in owners], owners


def obvious_code(box: list[float], anchor: list[float]) -> list[float]:
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return [
        ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / height,
        ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / width,
        math.log((box[3] - box[1]) / height),
        math.log((box[2] - box[0]) / width),
    ]


# Corners on a coarse grid, so that ties and equal boxes are common.
BOX = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 4)] * 2).map(
    lambda t: [8.0 * t[0], 8.0 * t[1], 8.0 * (t[0] + t[2]), 8.0 * (t[1] + t[3])]
)


@given(
    anchors=st.lists(BOX, min_size=1, max_size=12),
    pictures=st.lists(
        st.lists(st.tuples(BOX, st.integers(1, 5)), max_size=5), max_size=3, min_size=1
    ),
    padding=st.integers(0, 2),
)
@settings(max_examples=150, deadline=None)
def test_batched_matching_is_the_obvious_loop(anchors: list, pictures: list, padding: int):
    rows = max(map(len, pictures)) + padding
    padded = [picture + [([0.0] * 4, 0)] * (rows - len(picture)) for picture in pictures]
    shape = (len(pictures), rows)
    boxes = torch.tensor([[box for box, _ in picture] for picture in padded]).view(*shape, 4)
    labels = torch.tensor([[label for _, label in p] for p in padded], dtype=torch.long).view(shape)
    targets = match(torch.tensor(anchors), boxes, labels, MatchConfig())
    for image, picture in enumerate(padded):
        known = [box for box, _ in picture]
        expected, owners = obvious_match(anchors, known, [label for _, label in picture], 0.5)
        assert targets.labels[image].tolist() == expected
        for anchor, owner, code in zip(anchors, owners, targets.codes[image].tolist(), strict=True):
            wanted = [0.0] * 4 if owner is None else obvious_code(known[owner], anchor)
            assert code == pytest.approx(wanted, abs=1e-5)


def test_of_two_boxes_that_claim_one_anchor_the_first_keeps_it():
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [40.0, 40.0, 48.0, 48.0]])
    boxes = torch.tensor([[[0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 8.0, 8.0]]])
    targets = match(anchors, boxes, torch.tensor([[1, 2]]), MatchConfig())
    assert targets.labels.tolist() == [[1, 0]]


def test_a_picture_without_any_rows_is_all_background():
    targets = match(ANCHORS, torch.zeros(2, 0, 4), torch.zeros(2, 0).long(), MatchConfig())
    assert targets.labels.shape == (2, len(ANCHORS))
    assert not targets.positive.any()
    assert not targets.codes.any()


def test_padded_rows_change_nothing():
    boxes = torch.tensor([[[10.0, 10.0, 50.0, 40.0], [60.0, 5.0, 120.0, 90.0]]])
    labels = torch.tensor([[3, 7]])
    plain = match(ANCHORS, boxes, labels, MatchConfig())
    more = match(
        ANCHORS,
        torch.cat([boxes, torch.full((1, 4, 4), 33.0)], dim=1),
        torch.cat([labels, torch.zeros(1, 4).long()], dim=1),
        MatchConfig(),
    )
    assert torch.equal(plain.labels, more.labels)
    assert torch.equal(plain.codes, more.codes)


def test_threshold_itself_is_positive():
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 16.0], [0.0, 0.0, 8.0, 17.0]])
    targets = match(
        anchors, torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]), torch.tensor([[4]]), MatchConfig()
    )
    assert targets.labels.tolist() == [[4, 4, 0]]


@pytest.mark.parametrize("threshold", [5, -0.1])
def test_a_threshold_that_is_no_overlap_is_refused(threshold: float):
    with pytest.raises(ValueError, match=r"match\.threshold .* must be an overlap"):
        MatchConfig(threshold=threshold)


def test_overlap_of_boxes_without_area_is_zero():
    point = torch.tensor([[[5.0, 5.0, 5.0, 5.0]]])
    assert pairwise_iou(point, torch.tensor([[0.0, 0.0, 8.0, 8.0], [5.0] * 4])).tolist() == [
        [[0, 0]]
    ]
