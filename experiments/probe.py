"""The speed of a machine that has measured no run yet: a few training steps, timed once and kept.

The steps are those of the benchmarks, on noise with boxes: SpineNet-49 as the embedded profile
trains it, or on a GPU, which a network that small would leave idle, at its own size. The result is
kept per processor, GPU and version of torch in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import torch

from datamodules.drawn import cache_folder
from experiments.bench.contest import Device, Settings
from experiments.bench.detectors import Workload, draw, our_step
from experiments.compose import from_tree
from experiments.counting import EMBEDDED_CLASSES, counts
from experiments.provenance import gpu_name, processor
from experiments.recipe import Recipe
from experiments.store import write_atomically
from experiments.study import variant_tree
from experiments.study_file import load_profile, load_study
from spinenet.detection.config import RetinaNetConfig

WARM_UPS, STEPS = 2, 5
BESIDE_S = 10.0  # start, validation and files of a small run
GPU_BATCH = 16


def probed_speed() -> tuple[float, float, float]:
    """Multiply-adds in 1e9 of the probed network, its pictures per second in training, and
    seconds that a run takes beside training. Measured at the first call on a machine.
    """
    gpu = gpu_name()
    identity = {"processor": processor(), "gpu": gpu, "torch": torch.__version__}
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    path = cache_folder() / f"speed-{digest}.json"
    known = _read(path)
    if known is None:
        macs_b, images_per_second = _probe(gpu is not None)
        found = {"macs_b": macs_b, "images_per_second": images_per_second}
        with suppress(OSError):  # it is measured again the next time
            write_atomically(path, json.dumps(identity | found, indent=1))
        known = macs_b, images_per_second
    return *known, BESIDE_S


def _read(path: Path) -> tuple[float, float] | None:
    """What was measured before; None where nothing was, or the file is damaged."""
    try:
        kept = json.loads(path.read_bytes())
        found = float(kept["macs_b"]), float(kept["images_per_second"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    return found if all(0 < value < math.inf for value in found) else None


def _probe(on_gpu: bool) -> tuple[float, float]:
    study = load_study("ladder")
    profile = None if on_gpu else load_profile("embedded")
    tree = variant_tree(study, study.variants["spinenet-49"], profile)
    recipe = from_tree(tree, origin="probe")
    batch = GPU_BATCH if on_gpu else recipe.train.batch_size
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.train.threads)
    try:
        seconds = _step_seconds(recipe, batch, on_gpu)
    finally:
        torch.set_num_threads(threads)
    return counts(recipe, EMBEDDED_CLASSES["digits"]).macs_b, batch / seconds


def _step_seconds(recipe: Recipe, batch: int, on_gpu: bool) -> float:
    device: Device = "cuda" if on_gpu else "cpu"
    settings = Settings(device=device, precision="bf16" if on_gpu else "32")
    load = Workload(
        side=recipe.data.transform.side, batch=batch, classes=EMBEDDED_CLASSES["digits"]
    )
    assert isinstance(recipe.model, RetinaNetConfig)
    step, taken = our_step(recipe.model, load, draw(load, device), settings), []
    for _ in range(WARM_UPS + STEPS):
        start = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return median(taken[WARM_UPS:])
