"""How much of an embedded run's time waits for data: its steps with their data from the loader, in
turn with as many steps that take the same batch again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.bench.contest import Contest, Device, Settings, Side
from experiments.bench.detectors import Step, module_step
from experiments.networks import build
from experiments.single import compose_recipe
from experiments.tasks import datamodule


def contest(settings: Settings) -> Contest:
    """Steps of an embedded run with their data, against as many steps on one batch."""
    recipe = compose_recipe(
        "retinanet",
        profile="smoke" if settings.quick else "embedded",
        data=None,
        changes=[],
        seed=0,
    )
    data = datamodule(recipe)
    data.prepare_data()
    data.setup("fit")
    run = EmbeddedRun(data.train_dataloader(), settings.device)
    network = build(recipe, data.num_classes).to(settings.device)

    def step(next_batch: Callable[[], Any]) -> Step:
        def on_device() -> dict[str, torch.Tensor]:
            return {k: v.to(settings.device) for k, v in next_batch().items()}

        return module_step(network, recipe, settings.precision, on_device)

    batch = run.next()
    run.waited_s = 0.0
    with_data, without = step(run.next), step(lambda: batch)
    size = recipe.train.batch_size
    return Contest(
        name="embedded run, against without data",
        ours=Side("with its data", lambda: run.timed(with_data), size),
        theirs=Side("one batch again", without, size),
        unit="pictures",
        threads=recipe.train.threads,
        facts=lambda seconds: run.facts(),
    )


class EmbeddedRun:
    """Batches of an embedded run, and how long they were waited for."""

    def __init__(self, loader: Any, device: Device) -> None:
        self.loader, self.batches, self.device = loader, iter(loader), device
        self.waited_s, self.total_s = 0.0, 0.0

    def next(self) -> dict[str, torch.Tensor]:
        """The next batch, of the next epoch where one has ended."""
        start = time.perf_counter()
        batch: dict[str, torch.Tensor] | None = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        self.waited_s += time.perf_counter() - start
        return batch

    def timed(self, step: Step) -> None:
        """Take a step and count its time."""
        start = time.perf_counter()
        step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.total_s += time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        """The share of the steps' time that waited for data."""
        share = self.waited_s / self.total_s
        return {"waiting_share": share, "note": f"{share:.1%} of the time waits for data"}
