import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official_weights import load

from spinenet.detection.anchors import AnchorConfig, anchor_boxes, decode
from spinenet.detection.config import LossConfig, MaskRCNNLossConfig
from spinenet.detection.postprocess import PostprocessConfig, detections

OPERATIONS = load("operations")
LEVELS = (3, 4, 5, 6, 7)


def test_detections_are_the_official_generators():
    anchors = anchor_boxes(AnchorConfig(size=3), "tf2", (128, 128), LEVELS)
    logits, codes = (
        torch.cat(
            [torch.from_numpy(OPERATIONS[f"gen_{name}_l{n}"]).view(1, -1, k) for n in LEVELS], 1
        )
        for name, k in (("scores", 5), ("boxes", 4))
    )
    found = detections(logits, codes, anchors, torch.tensor([[110, 128]]), PostprocessConfig())
    expected = {
        name: torch.from_numpy(OPERATIONS[f"gen_v2_detection_{name}"])
        for name in ("boxes", "scores", "classes")
    }
    torch.testing.assert_close(found.scores, expected["scores"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.boxes[..., [1, 0, 3, 2]], expected["boxes"], rtol=0, atol=1e-3)
    assert torch.equal(found.labels, expected["classes"].long())
    assert (found.labels > 0).sum(1).tolist() == OPERATIONS["gen_v2_num_detections"].tolist()


def test_counting_the_last_pixel_in_decodes_and_clips_as_tensorflow_tpu():
    anchors = torch.tensor([[20.0, 30.0, 50.0, 40.0]])  # 31 by 11 pixels, the last one counted
    codes = torch.tensor([[[0.5, -0.25, math.log(2), math.log(3)]]])  # ty, tx, th, tw
    logits = torch.tensor([[[0.0, 4.0]]])
    config = PostprocessConfig(last_pixel=True)
    found = detections(logits, codes, anchors, torch.tensor([[56, 200]]), config).boxes[0, 0]
    centre_y, centre_x = 0.5 * 11 + 35.5, -0.25 * 31 + 35.5
    height, width = 2 * 11, 3 * 31
    top, left = centre_y - height / 2, centre_x - width / 2
    expected = [max(left, 0.0), top, left + width - 1, min(top + height - 1, 55.0)]
    torch.testing.assert_close(found, torch.tensor(expected))


def obvious_iou(a: list[float], b: list[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def obvious_detections(scores, boxes, valid, config: PostprocessConfig) -> list[tuple]:
    """(score, label, box) of one picture, best first: per class a greedy search, then the best of
    all.
    """
    height, width = valid
    clipped = [
        [
            min(max(c, 0.0), limit)
            for c, limit in zip(box, (float(width), float(height)) * 2, strict=True)
        ]
        for box in boxes
    ]
    found = []
    for label in range(1, len(scores[0])):
        row = [(s[label], a) for a, s in enumerate(scores) if s[label] > config.score_threshold]
        kept: list[tuple[float, int]] = []
        for score, a in sorted(row, reverse=True)[: config.pre_nms_per_class]:
            if all(obvious_iou(clipped[a], clipped[b]) <= config.nms_iou for _, b in kept):
                kept.append((score, a))
        found += [(score, label, clipped[a]) for score, a in kept]
    return sorted(found, key=lambda row: -row[0])[: config.max_detections]


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    shift=st.sampled_from([-8.0, -2.0, 1.0]),
    pre_nms=st.sampled_from([3, 5000]),
    cap=st.sampled_from([4, 100]),
)
@settings(max_examples=60, deadline=None)
def test_batched_postprocessing_is_the_obvious_loop(seed, batch, shift, pre_nms, cap):
    generator = torch.Generator().manual_seed(seed)
    config = PostprocessConfig(pre_nms_per_class=pre_nms, max_detections=cap)
    anchors = anchor_boxes(AnchorConfig(scales=1), "tf1", (32, 32), (3, 4))
    logits = torch.randn(batch, len(anchors), 4, generator=generator) * 2 + shift
    codes = torch.randn(batch, len(anchors), 4, generator=generator) / 4
    valid = torch.randint(10, 33, (batch, 2), generator=generator)
    found = detections(logits, codes, anchors, valid, config)
    assert found.boxes.shape == (batch, cap, 4)
    scores = logits.sigmoid().tolist()  # of the whole batch, so that the last bit agrees as well
    for image in range(batch):
        boxes = decode(codes[image], anchors).tolist()
        expected = obvious_detections(scores[image], boxes, valid[image].tolist(), config)
        count = len(expected)
        assert found.labels[image].tolist() == [row[1] for row in expected] + [0] * (cap - count)
        assert found.scores[image, :count].tolist() == [row[0] for row in expected]
        assert not found.scores[image, count:].any()
        assert not found.boxes[image, count:].any()
        if count:
            wanted = torch.tensor([row[2] for row in expected])
            torch.testing.assert_close(found.boxes[image, :count].float(), wanted)


def test_nothing_above_the_threshold_gives_only_padding():
    anchors = anchor_boxes(AnchorConfig(), "tf1", (32, 32), LEVELS)
    count = len(anchors)
    found = detections(
        torch.full((2, count, 3), -9.0),
        torch.zeros(2, count, 4),
        anchors,
        torch.tensor([[32, 32], [32, 32]]),
        PostprocessConfig(),
    )
    assert found.labels.shape == (2, 100)
    assert not any(t.any() for t in found)


@pytest.mark.parametrize(
    ("config", "wrong", "told"),
    [
        (PostprocessConfig, {"score_threshold": 5}, "score_threshold 5 must be in [0, 1]"),
        (PostprocessConfig, {"nms_iou": 50}, "postprocess.nms_iou 50 must be in [0, 1], not in"),
        (PostprocessConfig, {"max_detections": 0}, "max_detections 0 must be at least 1"),
        (PostprocessConfig, {"pre_nms_per_class": -1}, "pre_nms_per_class -1 must be at least 1"),
        (LossConfig, {"focal_alpha": 2.0}, "loss.focal_alpha 2.0 must be a share"),
        (LossConfig, {"focal_gamma": float("nan")}, "loss.focal_gamma nan must not be negative"),
        (LossConfig, {"box_weight": -1.0}, "loss.box_weight -1.0 must not be negative"),
        (LossConfig, {"huber_delta": 0.0}, "loss.huber_delta 0.0 must be above 0"),
        (MaskRCNNLossConfig, {"box_huber_delta": 0.0}, "loss.box_huber_delta 0.0 must be above 0"),
    ],
)
def test_constants_that_make_no_detector_are_refused(config, wrong, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        config(**wrong)


@pytest.mark.parametrize("label", [1, 2])
def test_background_is_never_reported_and_other_classes_do_not_suppress(label: int):
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]])
    logits = torch.tensor([[[9.0, -9.0, -9.0], [9.0, -9.0, -9.0]]])
    logits[0, 0, label], logits[0, 1, 3 - label] = 2.0, 1.0
    found = detections(
        logits, torch.zeros(1, 2, 4), anchors, torch.tensor([[16, 16]]), PostprocessConfig()
    )
    assert found.labels[0, :3].tolist() == [label, 3 - label, 0]
