"""Where a detector's time goes, by kind of operation, as torch's profiler sees it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch.profiler import ProfilerActivity, profile

from experiments.bench.contest import Device

SCOPE = "postprocess"  # a record_function of this name, and all that happens inside it

# Parts of an operator's name; an operation counts where the outermost operator that has one does.
KINDS = {
    "convolution": ("conv",),
    "norm": ("batch_norm",),
    "activation": ("relu", "silu", "hardswish", "sigmoid"),
    "resampling": ("upsample", "interpolate", "pool"),
    "fused": ("triton_",),  # of a compiled network
}
REST = "other"


def shares(run: Callable[[], object], device: Device) -> dict[str, float]:
    """Share of time by kind, of one call: on the processor its own time, on a GPU the kernels'."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's own lines are of no interest
    run()
    with profile(activities=activities) as profiler:
        run()
    spent: Counter[str] = Counter()
    for event in profiler.events() or ():
        attribute = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
        if event.device_type.name == "CPU":  # kernels are charged to the operator that started them
            spent[_kind(event)] += getattr(event, attribute)
    total = sum(spent.values()) or 1
    return {kind: spent[kind] / total for kind in (*KINDS, SCOPE, REST)}


def in_words(parts: Mapping[str, float]) -> str:
    """Shares by kind, for a note."""
    return ", ".join(f"{name} {share:.0%}" for name, share in parts.items())


def _kind(event: Any) -> str:
    """The kind of an event or of the operators around it."""
    found = REST
    while event is not None:
        if event.name == SCOPE:
            return SCOPE
        for kind, parts in KINDS.items():
            if any(part in event.name for part in parts):
                found = kind
        event = event.cpu_parent
    return found
