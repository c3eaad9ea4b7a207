"""SpineNet-49's RetinaNet at 640 pixels, detecting: its speed as a share of the machine's limit.

The limit is the fastest single operation found here, timed in turn with the network, each doing
about the same number of multiply-adds. A share below one is what norms, activations, resampling,
postprocessing and small maps cost. On a GPU in bf16 whose data sheet is known, the note gives the
share of that peak as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.profiler import record_function

from experiments.bench.breakdown import SCOPE, in_words, shares
from experiments.bench.contest import Contest, Settings, Side
from experiments.bench.detectors import Step
from experiments.bench.limits import Limit, fastest_operation, peak_share
from experiments.networks import compile_network
from spinenet.complexity import complexity
from spinenet.detection.postprocess import detections
from spinenet.detection.retinanet import RetinaNet, build_retinanet
from spinenet.folding import folded
from spinenet.zoo import model

CLASSES = 91
# The spread of class logits around their prior at which about a thousand of the 6.9 million scores
# of a picture pass the threshold, as with a trained network.
LOGIT_SPREAD = 0.46


def contests(settings: Settings) -> Iterator[Contest]:
    """Folded against as trained, then against the limit, one picture at a time and several."""
    side, several = _sizes(settings)
    images = _images(several, side, settings)
    network = _network(images, settings)
    twin = folded(network, images[:1])
    if settings.compiled:
        # Of one picture a GPU waits for the processor to start its hundreds of kernels; a graph of
        # them is started once.
        compile_network(twin, mode="reduce-overhead")
    yield Contest(
        "norms folded, against as trained",
        Side("norms folded", _detect(twin, images[:1], settings)),
        Side("as trained", _detect(network, images[:1], settings)),
    )
    limit, macs = fastest_operation(settings), complexity(network, side).macs_b * 1e9
    for batch in (1, several):
        yield _against(limit, twin, images[:batch], macs * batch, settings)


def _against(
    limit: Limit, network: nn.Module, images: Tensor, macs: float, settings: Settings
) -> Contest:
    batch, detect = len(images), _detect(network, images, settings)
    best, done = limit.repeated(macs)
    return Contest(
        name=f"batch {batch}, share of the limit",
        ours=Side(f"SpineNet-49, {batch} x {images.shape[-1]} pixels", detect, macs / 1e9),
        theirs=Side(limit.label, best, done / 1e9),
        unit="GMAC",
        facts=lambda seconds: _facts(detect, batch, macs, seconds, limit, settings),
    )


def _facts(
    detect: Step, batch: int, macs: float, seconds: float, limit: Limit, settings: Settings
) -> dict[str, Any]:
    """Latency, where the time goes, and on a GPU whose peak is known the share of that."""
    parts = shares(detect, settings.device)
    note = f"{seconds * 1e3:.4g} ms, {macs / batch / 1e9:.3g} B multiply-adds a picture; limit: "
    note += f"{limit.label}; {in_words(parts)}"
    facts: dict[str, Any] = {"macs_b": macs / 1e9, "limit": limit.label, "shares": parts}
    peak, said = peak_share(macs, seconds, settings)
    return facts | peak | {"note": note + said}


def _detect(network: nn.Module, images: Tensor, settings: Settings) -> Step:
    """`RetinaNet.detect`, with its second half marked for the profiler."""
    assert isinstance(network, RetinaNet)
    valid = torch.tensor(images.shape[-2:], device=images.device).expand(len(images), 2)

    @torch.inference_mode()
    def detect() -> None:
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.precision == "bf16"):
            logits, codes = network(images)
        with record_function(SCOPE):
            anchors = network.anchors(images)
            detections(logits, codes, anchors, valid, network.config.postprocess)

    return detect


@torch.no_grad()
def _network(images: Tensor, settings: Settings) -> RetinaNet:
    """The detector with statistics of these pictures in its norms and with as many candidates as a
    trained one has.
    """
    torch.manual_seed(0)
    network = build_retinanet(model("spinenet-49").retinanet(), CLASSES)
    network = network.to(settings.device).to(memory_format=torch.channels_last)
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(images)
    logits, _ = network.eval()(images[:1])
    network.get_parameter("head.classes.predict.weight").mul_(LOGIT_SPREAD / logits.std())
    return network


def _images(batch: int, side: int, settings: Settings) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=generator).to(settings.device)
    return images.contiguous(memory_format=torch.channels_last)


def _sizes(settings: Settings) -> tuple[int, int]:
    """Pixels and the larger batch."""
    if settings.quick:
        return 64, 2
    return 640, 64 if settings.device == "cuda" else 4
