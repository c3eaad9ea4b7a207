"""What counting a network gives; apart from the counting, so that to read counts needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Complexity:
    """Counts of one network for one picture: multiply-adds in 1e9, trainable parameters in 1e6, and
    per module.
    """

    macs_b: float
    params_m: float
    macs_b_by_module: dict[str, float]
