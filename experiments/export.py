"""A trained network as an ONNX file that other runtimes carry out.

The graph is the network alone, at a fixed side and any batch size: normalised images in; out come
a RetinaNet's class logits and box codes of all anchors, or a classifier's logits. What else is
needed to use it travels in the file's metadata: the label map, the side, the pictures' mean and
standard deviation, and the recipe, whose anchors and thresholds the detections follow from.

torch.export's exporter is used; the older tracing one fails on padding that depends on sizes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.transforms import MEAN_RGB, STD_RGB
from experiments.errors import UserError
from experiments.recipe import to_tree
from experiments.weights import Weights, refuse_folder

NEEDED = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"
OUTPUTS = {"retinanet": ("logits", "codes"), "classifier": ("logits",)}
TOLERANCE = 1e-4  # of the largest value of an output


def export_onnx(weights: Weights, path: Path, side: int | None = None) -> float:
    """Write the network of `weights` to `path` for inputs of `side` pixels (default: the recipe's).

    Returns the largest error of onnxruntime's outputs on a random picture, relative to the largest
    value. Raises UserError where a package is missing or the outputs disagree; nothing is left at
    `path` then.
    """
    _check_packages()
    refuse_folder(path)
    kind = weights.recipe.model.kind
    if kind not in OUTPUTS:
        raise UserError(
            f"{weights.path}: model.kind {kind} selects regions as it goes, which no graph of "
            f"fixed shapes holds; export one of {', '.join(OUTPUTS)}"
        )
    side = weights.recipe.data.transform.side if side is None else side
    model, images = weights.network(), _noise(2, side)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        _write(model, images, OUTPUTS[kind], partial, _metadata(weights, side))
        errors = [_difference(model, partial, batch) for batch in (images, _noise(1, side))]
        error = float(np.max(errors))  # which is not a number if one of them is none
        if not error <= TOLERANCE:
            raise UserError(
                f"{path}: onnxruntime's outputs differ from PyTorch's by {error:.1e} of the "
                f"largest value, more than {TOLERANCE:.0e}; the file was not written"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return error


def _check_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"export needs {', '.join(missing)}; install with: pip install '.[export]', "
            f"or: pip install {' '.join(missing)}"
        )


def _write(
    model: nn.Module,
    images: Tensor,
    outputs: Sequence[str],
    path: Path,
    metadata: dict[str, str],
) -> None:
    quiet = logging.getLogger("torch.onnx")
    level, quiet.level = quiet.level, logging.ERROR
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its steps
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: "batch"},),
            )
    finally:
        quiet.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def _metadata(weights: Weights, side: int) -> dict[str, str]:
    facts = {
        "labels": {number: asdict(label) for number, label in weights.labels.items()},
        "side": side,
        "mean_rgb": MEAN_RGB.flatten().tolist(),
        "std_rgb": STD_RGB.flatten().tolist(),
        "recipe": to_tree(weights.recipe),
    }
    return {key: json.dumps(value) for key, value in facts.items()}


def _noise(batch: int, side: int) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def _difference(model: nn.Module, path: Path, images: Tensor) -> float:
    """Largest difference of any output between onnxruntime and PyTorch, over the largest value."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found, expected = session.run(None, {INPUT: images.numpy()}), model(images)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    errors = [
        np.abs(ours - theirs.numpy()).max() / theirs.abs().max()
        for ours, theirs in zip(found, expected, strict=True)
    ]
    return float(np.max(errors))
