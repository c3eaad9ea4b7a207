"""COCO metrics: average precision over classes, overlaps, and sizes of objects; of boxes, and of
masks where the data have them.

Beside COCO's three size classes, AP is reported by octave of object size (the square root of the
area, in pixels of the picture), because the paper's question is one of scale. hotcoco scores while
training, pycocotools the final figure; a test holds the two equal.

The size of an annotated object is the area that its annotation states, that of a detection is its
own, of the box or of the mask. So a mask's sizes mean what they mean in COCO, where the stated area
is the mask's.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules import CocoIndex
from datamodules.masks import encode, rle
from spinenet.detection.postprocess import Detections

Backend = Literal["hotcoco", "pycocotools"]
Overlap = Literal["bbox", "segm"]

COCO_SIZES = {"": (0, 1e5), "S": (0, 32), "M": (32, 96), "L": (96, 1e5)}
RECALLED = ("S", "M", "L")  # the sizes of which COCO also reports the recall
OCTAVES = {f"_{2**k}to{2 ** (k + 1)}": (2**k, 2 ** (k + 1)) for k in range(3, 10)}
MAX_DETECTIONS = (1, 10, 100)
MASK_THRESHOLD = 0.5
PRECISION_CURVES = {"AP50": slice(0, 1), "AP75": slice(5, 6), "AP": slice(0, 10)}  # of T


@dataclass(frozen=True)
class Scores:
    """Percentages: `metrics` by name (COCO's twelve: AP, AP50, AP75, APS, …, AR1, …, ARL; AP_8to16,
    …), and by class name AP of boxes. The metrics of masks have the same names behind `mask/`:
    mask/AP, mask/AP50, …. Of a classifier they are top1 and top5, and top-1 by class.

    A size without any object has no entry.
    """

    metrics: dict[str, float]
    by_class: dict[str, float]


def to_coco(
    found: Detections,
    batch: dict[str, Tensor],
    label_to_category: dict[int, int],
    masks: Tensor | None = None,
) -> list[dict[str, Any]]:
    """Detections of a batch as rows of COCO's result format, in pixels of the stored picture.

    `masks` (B, D, m, m) are the probabilities of the detections' pixels; rows then have a
    'segmentation'.
    """
    rows = []
    scale = batch["scale"].flip(-1).repeat(1, 2)[:, None].to(found.boxes)  # (B, 1, 4): x, y, x, y
    corners = found.boxes / scale
    near, far = corners[..., :2], corners[..., 2:]
    xywh = torch.cat([near, far - near], dim=-1).tolist()
    scores, labels, ids = found.scores.tolist(), found.labels.tolist(), batch["image_id"].tolist()
    for i, image_id in enumerate(ids):
        # An official head has outputs for ids that COCO left out; what it finds there is nothing.
        kept = [k for k, label in enumerate(labels[i]) if label in label_to_category]
        image_rows = [
            {
                "image_id": image_id,
                "category_id": label_to_category[labels[i][k]],
                "bbox": xywh[i][k],
                "score": scores[i][k],
            }
            for k in kept
        ]
        if masks is not None:
            height, width = batch["size"][i].tolist()
            pasted = paste_masks(masks[i, kept], corners[i, kept], (height, width))
            for row, mask in zip(image_rows, pasted, strict=True):
                row["segmentation"] = mask
        rows += image_rows
    return rows


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Masks inside boxes → masks of the whole picture, as COCO's RLE.

    `masks` (n, m, m) are probabilities on the m x m cells of each box, `boxes` (n, 4) corners in
    pixels of the picture, `size` the picture's (height, width). A pixel belongs to the mask where
    the probability at its centre, bilinear between cells and zero beyond the box, is above 0.5.
    One mask at a time, and only inside its box: a hundred whole pictures can fill gigabytes.

    The official code, like torchvision, stretches the mask over a box rounded to whole pixels plus
    one, which costs objects under 16 pixels a third of their overlap even when the mask is right
    (annotated masks of cell nuclei cut out at 112 x 112 and pasted back: IoU 0.69, here 1.00).
    """
    probabilities, corners = masks.float().cpu(), boxes.double().cpu()
    pasted = []
    for probability, box in zip(probabilities, corners, strict=True):
        canvas = np.zeros(size, dtype=np.uint8, order="F")
        if bool((box[2:] > box[:2]).all()):
            _paste(canvas, probability, box)
        pasted.append(rle(encode(canvas), size))
    return pasted


def _paste(canvas: np.ndarray, probability: Tensor, box: Tensor) -> None:
    """Set the pixels of `canvas` (H, W) that a mask (m, m) in a box with area covers."""
    height, width = canvas.shape
    left, top = (max(int(v), 0) for v in box[:2].floor())
    right, bottom = (min(int(v), n) for v, n in zip(box[2:].ceil(), (width, height), strict=True))
    if left >= right or top >= bottom:
        return
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    x = (torch.arange(left, right) + 0.5 - centre[0]) / half[0]  # -1..1 from edge to edge
    y = (torch.arange(top, bottom) + 0.5 - centre[1]) / half[1]
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1)[None].float()
    read = F.grid_sample(probability[None, None], grid, align_corners=False)[0, 0]
    canvas[top:bottom, left:right] = (read > MASK_THRESHOLD).numpy()


def score(
    index: CocoIndex, detections: list[dict[str, Any]], backend: Backend = "pycocotools"
) -> Scores:
    """Score COCO-format `detections` against the ground truth of `index`.

    An index that was read with masks is scored by boxes and by masks; then every detection needs a
    'segmentation'.
    """
    metrics, by_class = _score(index, detections, "bbox", backend)
    if index.has_masks:
        by_mask, _ = _score(index, detections, "segm", backend)
        metrics |= {f"mask/{name}": value for name, value in by_mask.items()}
    return Scores(metrics, by_class)


def precision_curves(
    index: CocoIndex, detections: list[dict[str, Any]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Recall (101,) and the precision there of boxes, mean over classes, by the overlap asked for.

    They are the curves whose means AP50, AP75 and AP are.
    """
    recall = np.linspace(0, 1, 101)
    if not detections:
        return recall, {name: np.zeros(101) for name in PRECISION_CURVES}
    rows = _rows(detections, "bbox", "hotcoco")
    precision, _, _ = _evaluate(index, rows, {"": COCO_SIZES[""]}, "bbox", "hotcoco")
    present = (precision > -1).all((0, 1, 3, 4))  # a class without an object has no curve
    by_overlap = precision[:, :, present, 0, -1].mean(-1)  # (T, R)
    return recall, {name: by_overlap[at].mean(0) for name, at in PRECISION_CURVES.items()}


def _score(
    index: CocoIndex, detections: list[dict[str, Any]], overlap: Overlap, backend: Backend
) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics by name and AP by class name, for one way to measure overlap."""
    if not detections:  # neither backend takes an empty list
        return _nothing_found(index)
    names = {index.label_to_category[label]: name for label, name in index.class_names.items()}
    sizes = {**COCO_SIZES, **OCTAVES}
    rows = _rows(detections, overlap, backend)
    precision, recall, categories = _evaluate(index, rows, sizes, overlap, backend)
    metrics = {f"AP{suffix}": _mean(precision[:, :, :, i, -1]) for i, suffix in enumerate(sizes)}
    metrics["AP50"] = _mean(precision[0, :, :, 0, -1])
    metrics["AP75"] = _mean(precision[5, :, :, 0, -1])
    metrics |= {f"AR{n}": _mean(recall[:, :, 0, m]) for m, n in enumerate(MAX_DETECTIONS)}
    metrics |= {f"AR{s}": _mean(recall[:, :, i, -1]) for i, s in enumerate(sizes) if s in RECALLED}
    classes = {names[c]: _mean(precision[:, :, k, 0, -1]) for k, c in enumerate(categories)}
    return _known(metrics), _known(classes)


def precision_by_recall(
    index: CocoIndex, detections: list[dict[str, Any]]
) -> dict[str, list[tuple[float, float]]]:
    """Curves of (recall, precision) in percent, by the overlap of boxes that counts as found: 0.5,
    0.75, and the mean of all ten. Each is the mean over the classes that have an object.
    """
    if not detections:
        return {}
    recall, curves = precision_curves(index, detections)
    names = {"AP50": "IoU 0.50", "AP75": "IoU 0.75", "AP": "mean of 0.50 to 0.95"}
    return {
        name: list(zip((100 * recall).tolist(), (100 * curves[key]).tolist(), strict=True))
        for key, name in names.items()
    }


def _rows(
    detections: list[dict[str, Any]], overlap: Overlap, backend: Backend
) -> list[dict[str, Any]]:
    """The detections for a backend, with only what their overlap is measured by.

    With a box beside the mask, both backends would take the box's area for the detection's size.
    pycocotools writes keys of its own into what it is given, so it gets copies; copying takes as
    long as all that hotcoco does.
    """
    wanted, other = ("bbox", "segmentation") if overlap == "bbox" else ("segmentation", "bbox")
    for detection in detections:
        if wanted not in detection:
            raise ValueError(
                f"a detection has no {wanted!r} to be scored by: {detection}; read the index "
                f"without masks to score boxes alone"
            )
    if backend == "hotcoco" and not any(other in detection for detection in detections):
        return detections
    return [{k: value for k, value in one.items() if k != other} for one in detections]


def _nothing_found(index: CocoIndex) -> tuple[dict[str, float], dict[str, float]]:
    """Zero for everything that is defined: each size and class that has an object."""
    sides = np.concatenate([np.sqrt(r.area[~r.iscrowd]) for r in index.images])
    sizes = {**COCO_SIZES, **OCTAVES}
    present = [k for k, (low, high) in sizes.items() if ((low <= sides) & (sides <= high)).any()]
    names = [f"AP{suffix}" for suffix in present] + ["AP50", "AP75"]
    names += [f"AR{suffix}" for suffix in present if suffix in RECALLED]
    metrics = dict.fromkeys([*names, *(f"AR{n}" for n in MAX_DETECTIONS)], 0.0)
    labels = {int(label) for r in index.images for label in r.labels[~r.iscrowd]}
    return metrics, {index.class_names[label]: 0.0 for label in sorted(labels)}


def _evaluate(
    index: CocoIndex,
    rows: list[dict[str, Any]],
    sizes: dict[str, tuple[float, float]],
    overlap: Overlap,
    backend: Backend,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Precision (T, R, K, A, M), recall (T, K, A, M) as COCOeval accumulates them, and the category
    ids of K.
    """
    data_set, evaluator = _backend(backend)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = data_set(ground_truth(index))
        evaluation = evaluator(truth, truth.loadRes(rows), overlap)
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
        for k, (x1, y1, x2, y2) in enumerate(record.boxes.tolist()):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": record.id,
                "category_id": index.label_to_category[int(record.labels[k])],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(record.area[k]),
                "iscrowd": int(record.iscrowd[k]),
            }
            if record.masks is not None:
                annotation["segmentation"] = rle(record.masks[k], (record.height, record.width))
            annotations.append(annotation)
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
