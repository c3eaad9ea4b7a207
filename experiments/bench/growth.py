"""How the time of a training step grows with the batch, the picture's side, the objects on it and
the classes: our RetinaNet on SpineNet-49 and torchvision's on the same backbone.

One of the four is varied at a time, from the middle of the table. `figure` draws what came out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.bench.contest import Contest, Settings
from experiments.bench.detectors import Workload, narrow, torchvision_retinanet
from experiments.bench.step import contest
from spinenet.zoo import model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.bench.record import Record

MIDDLE = Workload(side=256, batch=2, objects=10, classes=91)
AXES: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8),
    "side": (128, 256, 384, 512),
    "objects": (1, 10, 100),
    "classes": (10, 100, 1000),
}
LABELS = {
    "batch": "pictures in a batch",
    "side": "pixels of a side",
    "objects": "objects on a picture",
    "classes": "classes",
}

QUICK_MIDDLE = Workload(side=128, batch=2, objects=2, classes=5)
QUICK_AXES: dict[str, tuple[int, ...]] = {"batch": (2,), "objects": (2, 4)}


def contests(settings: Settings) -> Iterator[Contest]:
    """A contest for each point of each axis."""
    middle, axes = (QUICK_MIDDLE, QUICK_AXES) if settings.quick else (MIDDLE, AXES)
    network = model("spinenet-49")
    if settings.quick:
        network = narrow(network)
    for axis, values in axes.items():
        for value in values:
            load = replace(middle, **{axis: value})
            theirs = torchvision_retinanet(load, network.backbone)
            yield contest(f"{axis} {value}", network.retinanet(), theirs, load, settings)


def figure(record: Record) -> Figure:
    """Seconds of a step over each axis, both scales logarithmic."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(outcome.name.split()[0] for outcome in record.outcomes))
    drawn = Figure(figsize=(3.2 * len(axes), 3.2), layout="constrained")
    for axis, plot in zip(
        axes, drawn.subplots(1, len(axes), sharey=True, squeeze=False)[0], strict=True
    ):
        found = [o for o in record.outcomes if o.name.split()[0] == axis]
        values = [int(o.name.split()[1]) for o in found]
        for label, seconds in (
            ("spinenet", [o.seconds(o.ours) for o in found]),
            ("torchvision", [o.seconds(o.theirs) for o in found]),
        ):
            plot.plot(values, seconds, marker="o", label=label)
        plot.set(xscale="log", yscale="log", xlabel=LABELS[axis])
        plot.set_xticks(values, [str(value) for value in values])
        plot.minorticks_off()
        plot.grid(alpha=0.3)
    drawn.axes[0].set_ylabel("seconds of a step")
    drawn.axes[0].legend()
    return drawn
