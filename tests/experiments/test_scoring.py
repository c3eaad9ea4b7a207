"""Scores: both backends agree on the awkward cases, and octaves are what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from datamodules import CocoIndex, ImageRecord
from datamodules.masks import decode, encode, rle
from experiments.scoring import paste_masks, precision_by_recall, score, to_coco
from spinenet.detection.postprocess import Detections


def index_of(records: list[ImageRecord]) -> CocoIndex:
    return CocoIndex(
        annotation_file=Path("val.json"),
        image_dir=Path(),
        images=tuple(records),
        categories={3: "cat", 7: "dog", 9: "unseen"},
    )


def record(image_id: int, boxes, labels, crowd=None) -> ImageRecord:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return ImageRecord(
        id=image_id,
        file_name=f"{image_id}.png",
        height=200,
        width=200,
        size_bytes=1,
        boxes=boxes,
        labels=np.asarray(labels, np.int64),
        iscrowd=np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool),
        area=area.astype(np.float32),
    )


def random_case(seed: int) -> tuple[CocoIndex, list[dict]]:
    """Crowds, empty pictures, ties in score, more than 100 detections in a picture."""
    rng = np.random.default_rng(seed)
    records, rows = [], []
    for image_id in range(12):
        count = 0 if image_id % 4 == 3 else int(rng.integers(1, 9))
        corner, side = rng.uniform(0, 120, (count, 2)), rng.uniform(4, 80, (count, 2))
        boxes = np.concatenate([corner, corner + side], 1)
        crowd = rng.random(count) < 0.15
        records.append(record(image_id, boxes, rng.integers(1, 3, count), crowd))
        for _ in range(130 if image_id == 5 else 20):
            start = boxes[rng.integers(count)] if count else np.array([5, 5, 30, 40])
            moved = start + rng.normal(0, 6, 4)
            x1, y1 = moved[:2]
            w, h = np.maximum(moved[2:] - moved[:2], 1)
            value = float(np.round(rng.random(), 1))
            box = {"image_id": image_id, "bbox": [float(v) for v in (x1, y1, w, h)]}
            rows.append(box | {"category_id": int(rng.choice([3, 7])), "score": value})
    return index_of(records), rows


@pytest.mark.parametrize("seed", range(5))
def test_hotcoco_equals_pycocotools_on_crowds_ties_empties_and_long_lists(seed):
    index, rows = random_case(seed)
    fast, exact = score(index, rows, "hotcoco"), score(index, rows, "pycocotools")
    assert fast.metrics == pytest.approx(exact.metrics, abs=1e-9)
    assert fast.by_class == pytest.approx(exact.by_class, abs=1e-9)
    assert exact.metrics["AP"] > 0


def test_the_area_under_precision_over_recall_is_ap():
    index, rows = random_case(0)
    metrics, curves = score(index, rows).metrics, precision_by_recall(index, rows)
    areas = {name: np.mean([p for _, p in curve]) for name, curve in curves.items()}
    assert areas["IoU 0.50"] == pytest.approx(metrics["AP50"], abs=1e-9)
    assert areas["IoU 0.75"] == pytest.approx(metrics["AP75"], abs=1e-9)
    assert areas["mean of 0.50 to 0.95"] == pytest.approx(metrics["AP"], abs=1e-9)
    recalls = [recall for recall, _ in curves["IoU 0.50"]]
    assert (recalls[0], recalls[-1], len(recalls)) == (0, 100, 101)
    assert precision_by_recall(index, []) == {}


def ellipse(x1, y1, x2, y2) -> np.ndarray:
    rows, columns = np.mgrid[:200, :200] + 0.5
    across, down = (2 * columns - x1 - x2) / (x2 - x1), (2 * rows - y1 - y2) / (y2 - y1)
    return across**2 + down**2 < 1


def with_masks(index: CocoIndex, rows: list[dict]) -> tuple[CocoIndex, list[dict]]:
    """The same objects and detections as ellipses in their boxes; some are empty masks."""
    images = tuple(
        replace(image, masks=tuple(encode(ellipse(*box)) for box in image.boxes.tolist()))
        for image in index.images
    )
    masked = []
    for k, row in enumerate(rows):
        x, y, width, height = row["bbox"]
        drawn = ellipse(x, y, x + width, y + height) & (k % 29 > 0)
        masked.append(row | {"segmentation": rle(encode(drawn), (200, 200))})
    return replace(index, images=images), masked


@pytest.mark.parametrize("seed", range(5))
def test_both_backends_agree_on_masks_as_well(seed):
    index, rows = with_masks(*random_case(seed))
    before = [dict(row) for row in rows]
    fast, exact = score(index, rows, "hotcoco"), score(index, rows, "pycocotools")
    assert fast.metrics == pytest.approx(exact.metrics, abs=1e-9)
    assert exact.metrics["mask/AP"] > 0
    assert exact.metrics["mask/AP"] != exact.metrics["AP"]
    assert rows == before


def test_masks_leave_the_scores_of_boxes_as_they_are():
    index, rows = random_case(0)
    boxes, both = score(index, rows), score(*with_masks(index, rows))
    of_masks = {name for name in both.metrics if name.startswith("mask/")}
    assert of_masks == {f"mask/{name}" for name in boxes.metrics}
    assert {k: v for k, v in both.metrics.items() if k not in of_masks} == boxes.metrics
    assert both.by_class == boxes.by_class


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_masks_are_scored_by_their_own_overlap_and_size(backend):
    """Right boxes with wrong masks; and a false alarm whose mask is smaller than its box."""
    boxes = [[10, 10, 40, 40], [100, 100, 130, 130]]
    index = index_of([record(1, boxes, [1, 1])])
    masks = [ellipse(10, 10, 40, 40), ellipse(100, 100, 130, 130)]
    images = (replace(index.images[0], masks=tuple(encode(m) for m in masks)),)
    alarm = np.zeros((200, 200), bool)
    alarm[150:160, 150:160] = True
    detections = [
        {"bbox": [10, 10, 30, 30], "mask": masks[0], "score": 0.9},
        {"bbox": [100, 100, 30, 30], "mask": ~masks[1], "score": 0.8},
        {"bbox": [150, 150, 20, 20], "mask": alarm, "score": 0.95},
    ]
    rows = [
        {"image_id": 1, "category_id": 3, "bbox": d["bbox"], "score": d["score"]}
        | {"segmentation": rle(encode(d["mask"]), (200, 200))}
        for d in detections
    ]
    found = score(replace(index, images=images), rows, backend).metrics
    # Best first: a false alarm, then both boxes, but one mask. In the objects' own octave the
    # alarm's box (20 pixels) counts and its mask (10 pixels) does not.
    assert found["AP50"] == pytest.approx(200 / 3, abs=0.1)
    assert found["AP_16to32"] == pytest.approx(found["AP50"])
    assert found["mask/AP50"] == pytest.approx(51 / 101 * 50, abs=0.1)
    assert found["mask/AP_16to32"] == pytest.approx(51 / 101 * 100, abs=0.1)


def test_a_detection_without_a_mask_cannot_be_scored_against_masks():
    index, rows = with_masks(*random_case(0))
    del rows[3]["segmentation"]
    with pytest.raises(ValueError, match="a detection has no 'segmentation'"):
        score(index, rows)


def test_no_detection_scores_zero_for_masks_too():
    index, _ = with_masks(*random_case(0))
    metrics = score(index, []).metrics
    assert metrics["mask/AP"] == metrics["mask/AP50"] == 0
    assert sum(name.startswith("mask/") for name in metrics) == len(metrics) / 2


def test_scoring_leaves_the_detections_as_they_were():
    index, rows = random_case(0)
    before = [dict(row) for row in rows]
    score(index, rows, "pycocotools")
    assert rows == before


def test_perfect_detections_score_100_in_their_octave_only():
    index = index_of([record(1, [[10, 10, 30, 30]], [1])])
    rows = [{"image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "score": 0.9}]
    found = score(index, rows)
    assert found.metrics["AP"] == pytest.approx(100)
    assert found.metrics["AP_16to32"] == pytest.approx(100)
    assert "AP_32to64" not in found.metrics
    assert found.by_class == pytest.approx({"cat": 100})


def test_no_detection_scores_zero():
    index = index_of([record(1, [[10, 10, 30, 30]], [1])])
    found = score(index, [])
    assert found.metrics["AP"] == 0
    assert found.by_class == {"cat": 0.0}


def test_detections_return_to_the_stored_pictures_pixels():
    found = Detections(
        boxes=torch.tensor([[[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 0.0, 0.0]]]),
        scores=torch.tensor([[0.75, 0.0]]),
        labels=torch.tensor([[2, 0]]),
    )
    batch = {"scale": torch.tensor([[0.5, 0.25]]), "image_id": torch.tensor([42])}
    assert to_coco(found, batch, {1: 3, 2: 7}) == [
        {"image_id": 42, "category_id": 7, "bbox": [40.0, 40.0, 80.0, 80.0], "score": 0.75}
    ]


def test_detections_with_masks_become_rows_with_masks_of_the_stored_picture():
    found = Detections(
        boxes=torch.tensor([[[0.0, 0, 0, 0], [10.0, 20.0, 30.0, 60.0]]]),
        scores=torch.tensor([[0.0, 0.75]]),
        labels=torch.tensor([[0, 2]]),
    )
    batch = {
        "scale": torch.tensor([[0.5, 0.25]]),
        "image_id": torch.tensor([42]),
        "size": torch.tensor([[150, 200]]),
    }
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 1, :, :2] = 1
    (row,) = to_coco(found, batch, {1: 3, 2: 7}, masks)
    plain = to_coco(found, batch, {1: 3, 2: 7})
    expected = np.zeros((150, 200), np.uint8)
    expected[40 + 10 : 120 - 10, 40 + 10 : 80] = 1
    mask = decode(row["segmentation"]["counts"].encode(), (150, 200))
    # Beyond the outer cells' centres the probability falls to a half at the box's edge.
    assert (mask[expected == 1] == 1).all()
    assert mask.sum() == mask[40:120, 40:80].sum()
    del row["segmentation"]
    assert [row] == plain


def pasted(masks, boxes, size) -> np.ndarray:
    rows = paste_masks(masks, boxes, size)
    assert all(row["size"] == list(size) for row in rows)
    return np.array([decode(row["counts"].encode(), size) for row in rows])


def slow_paste(mask, box, size) -> np.ndarray:
    """One pixel after the other: bilinear between the four cells around its centre."""
    cells, (x1, y1, x2, y2) = len(mask), box
    padded = np.pad(mask, 1)
    canvas = np.zeros(size, np.uint8)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = column + 0.5, row + 0.5
            if not (x1 < x < x2 and y1 < y < y2):
                continue
            u, v = (x - x1) / (x2 - x1) * cells + 0.5, (y - y1) / (y2 - y1) * cells + 0.5
            i, j, across, down = int(u), int(v), u % 1, v % 1
            upper = padded[j, i] * (1 - across) + padded[j, i + 1] * across
            lower = padded[j + 1, i] * (1 - across) + padded[j + 1, i + 1] * across
            canvas[row, column] = upper * (1 - down) + lower * down > 0.5
    return canvas


def test_masks_are_pasted_as_the_slow_way_pastes_them():
    """Boxes at fractions of pixels, larger and smaller than the cells, across every edge."""
    rng = np.random.default_rng(0)
    boxes = [[3.2, 4.7, 20.1, 9.9], [-5.5, -3, 12, 14.5], [20, 10, 49, 33], [1, 2, 1.4, 30]]
    masks = rng.random((4, 7, 7)).astype(np.float32)
    made = pasted(torch.from_numpy(masks), torch.tensor(boxes), (30, 40))
    for one, mask, box in zip(made, masks, boxes, strict=True):
        assert (one == slow_paste(mask, box, (30, 40))).all()
    assert made[:3].any(axis=(1, 2)).all()


def test_boxes_without_area_or_outside_give_empty_masks():
    boxes = torch.tensor([[5.0, 5, 5, 9], [60, 5, 70, 9], [-9, -9, -2, -2], [5, 9, 7, 4]])
    assert not pasted(torch.ones(4, 7, 7), boxes, (30, 40)).any()
    assert paste_masks(torch.ones(0, 7, 7), torch.zeros(0, 4), (30, 40)) == []


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_a_small_mask_cut_out_and_pasted_back_is_itself_where_rounding_boxes_loses_it():
    true = ellipse(50, 60, 60, 70).astype(np.uint8)
    box = torch.tensor([[50.0, 60, 60, 70]])
    cells = torch.from_numpy(true[60:70, 50:60]).float()
    fine = cells.repeat_interleave(11, 0).repeat_interleave(11, 1)[None]
    assert overlap(pasted(fine, box, (200, 200))[0], true) == 1
    rounded = paste_masks_in_image(fine[None], box, (200, 200))[0, 0] > 0.5
    assert overlap(rounded.numpy().astype(np.uint8), true) < 0.85
