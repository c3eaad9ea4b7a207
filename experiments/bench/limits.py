"""How fast this device multiplies at best: what a network's speed is a share of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from experiments.bench.contest import Device, Settings

# Dense bf16 with float32 accumulation, in 1e12 multiply-adds per second: half the FLOP/s of the
# makers' data sheets. A name is matched by its beginning after "NVIDIA ", the longest first.
BF16_PEAK_T = {
    "GB200": 1250.0,
    "B200": 1125.0,
    "H200": 494.7,
    "H100 PCIe": 378.5,
    "H100 NVL": 417.5,
    "H100": 494.7,
    "A100": 156.0,
    "L40S": 181.0,
    "L4": 60.5,
    "A10G": 35.0,
    "A10": 62.5,
}

# (batch, input and output channels, side, kernel) of convolutions as these networks have them.
CONVOLUTIONS = (
    (1, 256, 80, 3),
    (1, 64, 160, 3),
    (1, 512, 40, 3),
    (4, 256, 64, 3),
    (8, 128, 64, 3),
    (1, 1024, 56, 1),
    (4, 1024, 40, 1),
)
MATRIX = 8192  # rows and columns of the product on a GPU
TRIES = 5


@dataclass(frozen=True)
class Limit:
    """The fastest single operation found; `run` does `macs` multiply-adds."""

    label: str
    macs: float
    run: Callable[[], object]

    def repeated(self, macs: float) -> tuple[Callable[[], object], float]:
        """The operation as often as it takes to about `macs`, and the multiply-adds done."""
        times = max(1, round(macs / self.macs))

        def run() -> None:
            for _ in range(times):
                self.run()

        return run, times * self.macs


def fastest_operation(settings: Settings) -> Limit:
    """On a GPU a large product of matrices, on a processor the best of some convolutions."""
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    if settings.device == "cuda":
        return _product(MATRIX, dtype, settings.device)
    shapes = CONVOLUTIONS[:2] if settings.quick else CONVOLUTIONS
    found = [_convolution(*shape, dtype, settings.device) for shape in shapes]
    return max(found, key=lambda limit: limit.macs / _least_seconds(limit.run))


def data_sheet_peak(name: str) -> float | None:
    """Dense bf16 multiply-adds per second of a GPU, None for one that is not in the table."""
    short = name.removeprefix("NVIDIA ").strip()
    known = [key for key in BF16_PEAK_T if short.startswith(key)]
    return BF16_PEAK_T[max(known, key=len)] * 1e12 if known else None


def _convolution(
    batch: int, channels: int, side: int, kernel: int, dtype: torch.dtype, device: Device
) -> Limit:
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    layer = layer.to(device, dtype).requires_grad_(False)
    layer = layer.to(memory_format=torch.channels_last)
    images = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    label = f"{kernel}x{kernel} convolution of {channels} channels, {batch} x {side} x {side}"
    macs = float(batch * side**2 * channels**2 * kernel**2)
    return Limit(label, macs, lambda: layer(images))


def _product(side: int, dtype: torch.dtype, device: Device) -> Limit:
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return Limit(f"product of {side} x {side} matrices", float(side**3), lambda: a @ b)


def _least_seconds(run: Callable[[], object]) -> float:
    """Of some calls on the processor, after one to warm up."""
    run()
    taken = []
    for _ in range(TRIES):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)
