"""Scores: both backends agree on the awkward cases, and octaves are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import CocoIndex, ImageRecord
from experiments.scoring import score, to_coco
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
