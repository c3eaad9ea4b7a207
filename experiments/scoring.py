"""COCO metrics: average precision over classes, overlaps, and sizes of objects.

Beside COCO's three size classes, AP is reported by octave of object size (the square root of the
area, in pixels of the picture), because the paper's question is one of scale. hotcoco scores while
training, pycocotools the final figure; a test holds the two equal.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules import CocoIndex
from spinenet.detection.postprocess import Detections

Backend = Literal["hotcoco", "pycocotools"]

COCO_SIZES = {"": (0, 1e5), "S": (0, 32), "M": (32, 96), "L": (96, 1e5)}
OCTAVES = {f"_{2**k}to{2 ** (k + 1)}": (2**k, 2 ** (k + 1)) for k in range(3, 10)}
MAX_DETECTIONS = (1, 10, 100)


@dataclass(frozen=True)
class Scores:
    """Percentages: `metrics` by name (AP, AP50, AP75, APS, …, AR100, AP_8to16, …), and AP by class
    name.

    A size without any object has no entry.
    """

    metrics: dict[str, float]
    by_class: dict[str, float]


def to_coco(
    found: Detections, batch: dict[str, Tensor], label_to_category: dict[int, int]
) -> list[dict[str, Any]]:
    """Detections of a batch as rows of COCO's result format, in pixels of the stored picture."""
    rows = []
    scale = batch["scale"].flip(-1).repeat(1, 2)[:, None].to(found.boxes)  # (B, 1, 4): x, y, x, y
    boxes = found.boxes / scale
    corner, far = boxes[..., :2], boxes[..., 2:]
    xywh = torch.cat([corner, far - corner], dim=-1).tolist()
    scores, labels, ids = found.scores.tolist(), found.labels.tolist(), batch["image_id"].tolist()
    for image_id, image_boxes, image_scores, image_labels in zip(
        ids, xywh, scores, labels, strict=True
    ):
        for box, score, label in zip(image_boxes, image_scores, image_labels, strict=True):
            if label > 0:
                category = label_to_category[label]
                rows.append(
                    {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
                )
    return rows


def score(
    index: CocoIndex, detections: list[dict[str, Any]], backend: Backend = "pycocotools"
) -> Scores:
    """Score COCO-format `detections` against the ground truth of `index`."""
    if not detections:  # neither backend takes an empty list
        return _nothing_found(index)
    names = {index.label_to_category[label]: name for label, name in index.class_names.items()}
    sizes = {**COCO_SIZES, **OCTAVES}
    precision, recall, categories = _evaluate(index, detections, sizes, backend)
    metrics = {f"AP{suffix}": _mean(precision[:, :, :, i, -1]) for i, suffix in enumerate(sizes)}
    metrics["AP50"] = _mean(precision[0, :, :, 0, -1])
    metrics["AP75"] = _mean(precision[5, :, :, 0, -1])
    metrics |= {f"AR{n}": _mean(recall[:, :, 0, m]) for m, n in enumerate(MAX_DETECTIONS)}
    classes = {names[c]: _mean(precision[:, :, k, 0, -1]) for k, c in enumerate(categories)}
    return Scores(_known(metrics), _known(classes))


def _nothing_found(index: CocoIndex) -> Scores:
    """Zero for everything that is defined: each size and class that has an object."""
    sides = np.concatenate([np.sqrt(r.area[~r.iscrowd]) for r in index.images])
    sizes = {**COCO_SIZES, **OCTAVES}
    present = [k for k, (low, high) in sizes.items() if ((low <= sides) & (sides <= high)).any()]
    names = [f"AP{suffix}" for suffix in present] + ["AP50", "AP75"]
    metrics = dict.fromkeys([*names, *(f"AR{n}" for n in MAX_DETECTIONS)], 0.0)
    labels = {int(label) for r in index.images for label in r.labels[~r.iscrowd]}
    return Scores(metrics, {index.class_names[label]: 0.0 for label in sorted(labels)})


def _evaluate(
    index: CocoIndex,
    detections: list[dict[str, Any]],
    sizes: dict[str, tuple[float, float]],
    backend: Backend,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Precision (T, R, K, A, M), recall (T, K, A, M) as COCOeval accumulates them, and the category
    ids of K.
    """
    data_set, evaluator = _backend(backend)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = data_set(ground_truth(index))
        evaluation = evaluator(truth, truth.loadRes([dict(row) for row in detections]), "bbox")
        evaluation.params.areaRng = [[low**2, high**2] for low, high in sizes.values()]
        evaluation.params.areaRngLbl = [suffix or "all" for suffix in sizes]
        evaluation.params.maxDets = list(MAX_DETECTIONS)
        evaluation.evaluate()
        evaluation.accumulate()
    counts = evaluation.eval
    return (
        np.asarray(counts["precision"]),
        np.asarray(counts["recall"]),
        list(evaluation.params.catIds),
    )


def _backend(backend: Backend) -> tuple[Any, Any]:
    """The backend's data set, made from a COCO dictionary, and its evaluator."""
    if backend == "hotcoco":
        import hotcoco

        return hotcoco.COCO, hotcoco.COCOeval
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def from_dictionary(data: dict[str, Any]) -> Any:
        made = COCO()
        made.dataset = data
        made.createIndex()
        return made

    return from_dictionary, COCOeval


def ground_truth(index: CocoIndex) -> dict[str, Any]:
    """The annotations of an index as a COCO data set."""
    annotations: list[dict[str, Any]] = []
    for record in index.images:
        rows = zip(
            record.boxes.tolist(),
            record.labels.tolist(),
            record.iscrowd.tolist(),
            record.area.tolist(),
            strict=True,
        )
        for (x1, y1, x2, y2), label, crowd, area in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.id,
                    "category_id": index.label_to_category[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    images = [
        {"id": r.id, "file_name": r.file_name, "width": r.width, "height": r.height}
        for r in index.images
    ]
    categories = [
        {"id": index.label_to_category[k], "name": name} for k, name in index.class_names.items()
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _mean(values: np.ndarray) -> float:
    """Mean in percent of what was defined; NaN if nothing was (COCO marks that by -1)."""
    defined = values[values > -1]
    return float(defined.mean()) * 100 if defined.size else float("nan")


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not np.isnan(value)}
