"""How fast this device multiplies at best: what a network's speed is a share of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from experiments.bench.contest import Device, Settings

# Dense bf16 with float32 accumulation, in 1e12 FLOP/s as in the makers' data sheets, where a
# multiply-add counts two; by the first words of the name that torch gives.
BF16_PEAK_TFLOPS = {
    "GB200": 2500,
    "B200": 2250,
    "GH200": 989,
    "H200": 989,
    "H200 NVL": 835,
    "H100": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "A100": 312,
    "A10": 125,
    "A10G": 70,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
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
PICTURES_ON_GPU = 16  # times the batch of each convolution
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
    """The best of some convolutions and, on a GPU, a large product of matrices."""
    device = settings.device
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    shapes = CONVOLUTIONS[:2] if settings.quick else CONVOLUTIONS
    pictures = PICTURES_ON_GPU if device == "cuda" else 1
    found = [
        _convolution(pictures * batch, channels, side, kernel, dtype, device)
        for batch, channels, side, kernel in shapes
    ]
    if device == "cuda":
        found.append(_product(MATRIX, dtype, device))
    return max(found, key=lambda limit: limit.macs / _least_seconds(limit.run, device))


def data_sheet_peak(name: str) -> float | None:
    """Dense bf16 multiply-adds per second of a GPU, None for one that is not in the table."""
    words = re.split("[ -]", name.removeprefix("NVIDIA "))
    known = [k for k in BF16_PEAK_TFLOPS if words[: len(k.split())] == k.split()]
    return BF16_PEAK_TFLOPS[max(known, key=len)] / 2 * 1e12 if known else None


def peak_share(macs: float, seconds: float, settings: Settings) -> tuple[dict[str, float], str]:
    """What share of the data sheet's bf16 peak `macs` in `seconds` are, as facts and in words;
    nothing but on a GPU in bf16 whose sheet is known.
    """
    if settings.device != "cuda" or settings.precision != "bf16":
        return {}, ""
    name = torch.cuda.get_device_name()
    if (peak := data_sheet_peak(name)) is None:
        return {}, ""
    share = macs / seconds / peak
    said = f"; {share:.1%} of the {peak / 1e12:.4g} T multiply-adds a second of {name}'s data sheet"
    return {"peak_macs_t": peak / 1e12, "peak_share": share}, said


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


def _least_seconds(run: Callable[[], object], device: Device) -> float:
    """Of some calls, after one to warm up."""
    taken = []
    for _ in range(1 + TRIES):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
