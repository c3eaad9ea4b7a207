"""Scoring 5,000 pictures of 100 detections: our scorer against pycocotools and faster-coco-eval.

Each gets the annotations and the detections as they are in memory after an evaluation and ends with
COCO's twelve numbers, which must be equal. Ours also reports AP by octave of size and by class,
which the others do not. The peak of memory is that of a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules import CocoIndex, ImageRecord
from datamodules.coco import COCO_IDS
from experiments.bench.contest import Contest, Settings, Side, Skipped, missing
from experiments.scoring import ground_truth, score
from experiments.subprocesses import python

Scorer = Literal["spinenet", "pycocotools", "faster-coco-eval"]
PEERS: tuple[Scorer, ...] = ("pycocotools", "faster-coco-eval")
Rows = list[dict[str, Any]]

TWELVE = ["AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL"]
PICTURES, DETECTIONS = 5000, 100
OBJECTS = 7.3  # of a picture of COCO on average
WIDTH, HEIGHT = 640, 480
STATUS = Path("/proc/self/status")  # Linux's account of this process


def contests(settings: Settings) -> Iterator[Contest | Skipped]:
    """Ours against each peer."""
    pictures = 40 if settings.quick else PICTURES
    for peer in PEERS:
        name = f"{pictures:,} pictures, against {peer}"
        reason = missing("faster_coco_eval", peer) if peer == "faster-coco-eval" else None
        yield Skipped(name, reason) if reason else _contest(name, peer, pictures, settings)


def _contest(name: str, peer: Scorer, pictures: int, settings: Settings) -> Contest:
    index = draw_truth(pictures)
    # A list for each side: pycocotools writes into the detections that it is given.
    a, b = (Scoring(scorer, index, draw_detections(index)) for scorer in ("spinenet", peer))
    return Contest(
        name=name,
        ours=Side("spinenet (hotcoco)", a),
        theirs=Side(peer, b),
        facts=lambda seconds: _facts(a, b, pictures, settings),
    )


def _facts(a: Scoring, b: Scoring, pictures: int, settings: Settings) -> dict[str, Any]:
    difference = max(abs(x - y) for x, y in zip(a.numbers, b.numbers, strict=True))
    peaks = {side.scorer: _peak(side.scorer, pictures, settings.threads) for side in (a, b)}
    added = (f"{peak['peak_mb'] - peak['before_mb']:.0f}" for peak in peaks.values())
    note = f"largest difference of the twelve numbers {difference:.1e}; memory for scoring at its "
    note += f"peak {' against '.join(added)} MB"
    return {
        "numbers": dict(zip(TWELVE, a.numbers, strict=True)),
        "difference": difference,
        "memory": peaks,
        "note": note,
    }


@cache
def _peak(scorer: Scorer, pictures: int, threads: int) -> dict[str, float]:
    """What `print_peak` prints in a process of its own."""
    code = "from experiments.bench.scoring import print_peak; print_peak()"
    found: dict[str, float] = json.loads(python(code, scorer, str(pictures), threads=threads))
    return found


class Scoring:
    """One scorer and what it scores; `numbers` are COCO's twelve, of 0..1, after a call."""

    def __init__(self, scorer: Scorer, index: CocoIndex, detections: Rows) -> None:
        self.scorer, self.index, self.detections = scorer, index, detections
        self.truth = {} if scorer == "spinenet" else ground_truth(index)
        self.numbers: list[float] = []

    def __call__(self) -> None:
        if self.scorer == "spinenet":
            metrics = score(self.index, self.detections, "hotcoco").metrics
            self.numbers = [metrics[name] / 100 for name in TWELVE]
        else:
            data_set, evaluator = _peer(self.scorer)
            with contextlib.redirect_stdout(io.StringIO()):
                self.numbers = _summary(data_set(), evaluator, self.truth, self.detections)


def _peer(scorer: Scorer) -> tuple[Callable[[], Any], Any]:
    if scorer == "faster-coco-eval":
        from faster_coco_eval import COCO as FASTER
        from faster_coco_eval import COCOeval_faster

        return FASTER, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _summary(data_set: Any, evaluator: Any, truth: dict[str, Any], rows: Rows) -> list[float]:
    """The twelve numbers by pycocotools' interface, which its successor shares."""
    data_set.dataset = truth
    data_set.createIndex()
    evaluation = evaluator(data_set, data_set.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats[:12]]


def draw_truth(pictures: int) -> CocoIndex:
    """COCO's 80 categories, some far more common than others; sides spread evenly in octaves from 6
    to 400 pixels; one object in a hundred is a crowd.
    """
    rng, categories = np.random.default_rng(0), sorted(COCO_IDS)
    frequency = 1 / np.arange(1, len(categories) + 1)
    images = []
    for number in range(1, pictures + 1):
        count = 1 + rng.poisson(OBJECTS - 1)
        boxes = _boxes(rng, count)
        sides = boxes[:, 2:] - boxes[:, :2]
        images.append(
            ImageRecord(
                id=number,
                file_name=f"{number}.jpg",
                height=HEIGHT,
                width=WIDTH,
                size_bytes=0,
                boxes=boxes,
                labels=rng.choice(categories, count, p=frequency / frequency.sum()),
                iscrowd=rng.random(count) < 0.01,
                area=(sides.prod(axis=1) * rng.uniform(0.5, 1, count)).astype(np.float32),
            )
        )
    names = {category: f"category {category}" for category in categories}
    return CocoIndex(Path(), Path(), tuple(images), names)


def draw_detections(index: CocoIndex) -> Rows:
    """For each object a few jittered boxes, most with its label and high scores; the rest of the
    hundred are anywhere.
    """
    rng, categories, rows = np.random.default_rng(1), sorted(index.categories), []
    for record in index.images:
        near = rng.integers(0, len(record.boxes), DETECTIONS // 2)
        sides = np.tile(record.boxes[near, 2:] - record.boxes[near, :2], 2)
        jittered = record.boxes[near] + sides * rng.normal(0, 0.1, sides.shape)
        corners = np.concatenate([jittered, _boxes(rng, DETECTIONS - len(near))])
        low, high = np.sort(corners.reshape(-1, 2, 2), axis=1).transpose(1, 0, 2)
        labels = rng.choice(categories, DETECTIONS)
        right = rng.random(len(near)) < 0.8
        labels[: len(near)][right] = record.labels[near][right]
        scores = np.sort(rng.beta(1, 4, DETECTIONS))[::-1]
        boxes = np.concatenate([low, high - low], axis=1).tolist()
        rows += [
            {"image_id": record.id, "category_id": label, "bbox": box, "score": value}
            for label, box, value in zip(labels.tolist(), boxes, scores.tolist(), strict=True)
        ]
    return rows


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """float32 (count, 4) corners within the picture."""
    size = np.array([WIDTH, HEIGHT])
    sides = np.exp(rng.uniform(np.log(6), np.log(400), (count, 2)))
    near = rng.random((count, 2)) * (size - sides)
    return np.concatenate([near, near + sides], axis=1).astype(np.float32)


def print_peak() -> None:
    """In a process of its own: draw, score with the scorer that argv names, print the peaks."""
    scorer, pictures = sys.argv[1:]
    index = draw_truth(int(pictures))
    scoring = Scoring(scorer, index, draw_detections(index))  # type: ignore[arg-type]
    before = _start_peak_mb()
    scoring()
    print(json.dumps({"before_mb": before, "peak_mb": _peak_mb()}))


def _start_peak_mb() -> float:
    """Memory in use, in 1e6 bytes; on Linux the peak starts again from here."""
    if STATUS.is_file():
        STATUS.with_name("clear_refs").write_text("5")  # proc(5): resets VmHWM
    return _peak_mb()


def _peak_mb() -> float:
    """The most memory that this process has held, in 1e6 bytes.

    Linux counts a parent's pages in its child's ru_maxrss, from the time before exec, so there the
    address space's own peak is read.
    """
    if STATUS.is_file():
        (line,) = (one for one in STATUS.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
