"""All benchmarks by name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from experiments.bench.contest import Benchmark, Contest, Settings, Skipped
from experiments.errors import UserError, did_you_mean

TITLES = {
    "step": "A training step against torchvision's detectors",
    "inference": "SpineNet-49 detecting, as a share of what the machine can multiply",
    "scoring": "COCO scoring against pycocotools and faster-coco-eval",
    "input": "Reading data against torchvision's pipeline",
    "growth": "A training step as the work grows",
    "startup": "Starting commands against importing torch",
}


def benchmark(name: str) -> Benchmark:
    """A benchmark by name. Raises UserError with the nearest name for an unknown one."""
    if name not in TITLES:
        raise UserError(f"no benchmark {name!r}; {did_you_mean(name, TITLES)}")

    def contests(settings: Settings) -> Iterator[Contest | Skipped]:
        yield from import_module(f"experiments.bench.{name}").contests(settings)

    return Benchmark(TITLES[name], contests)
