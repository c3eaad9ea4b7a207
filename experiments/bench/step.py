"""A training step (forward, losses, backward, optimiser) against torchvision's detectors.

The networks are comparable, not equal: torchvision's RetinaNet has no norms in its heads, its first
Mask R-CNN no convolutions in the box head, and its second stage takes what regions there are where
ours has a fixed number. The multiply-adds of both steps stand in the notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from experiments.bench.contest import Contest, Precision, Settings, Side
from experiments.bench.detectors import (
    Step,
    Version,
    Workload,
    draw,
    facts_of,
    module_step,
    narrow,
    our_step,
    torchvision_mask_rcnn,
    torchvision_retinanet,
    torchvision_step,
)
from experiments.capturing import capture
from experiments.counting import EMBEDDED_CLASSES
from experiments.module import network_input
from experiments.networks import build
from experiments.single import compose_recipe
from spinenet.detection.config import MaskRCNNConfig, RetinaNetConfig, ROIConfig
from spinenet.zoo import model


def contests(settings: Settings) -> Iterator[Contest]:
    """RetinaNet on two backbones and Mask R-CNN."""
    load = _workload(settings)
    r50, spinenet = model("r50-fpn"), model("spinenet-49")
    if settings.quick:
        spinenet = narrow(spinenet)
    yield contest(
        "RetinaNet R50-FPN, step", r50.retinanet(), torchvision_retinanet(load), load, settings
    )
    if settings.precision == "bf16" and not settings.compiled:
        yield contest(
            "RetinaNet R50-FPN, step, against theirs in float32",
            r50.retinanet(),
            torchvision_retinanet(load),
            load,
            settings,
            their_precision="32",
        )
    yield contest(
        "RetinaNet SpineNet-49, step",
        spinenet.retinanet(),
        torchvision_retinanet(load, spinenet.backbone),
        load,
        settings,
    )
    yield contest(
        "RetinaNet SpineNet-49, step, against their R50-FPN",
        spinenet.retinanet(),
        torchvision_retinanet(load),
        load,
        settings,
    )
    if settings.compiled:
        return
    if settings.device == "cuda":
        yield _captured(settings)
    fewer = replace(load, batch=max(2, load.batch // 2))
    rois = ROIConfig(samples=load.regions)
    versions: tuple[Version, ...] = (2,) if settings.quick else (1, 2)
    for version in versions:
        yield contest(
            f"Mask R-CNN R50-FPN, step, against v{version}",
            replace(r50.mask_rcnn(), rois=rois),
            torchvision_mask_rcnn(fewer, version),
            fewer,
            settings,
        )


def _captured(settings: Settings) -> Contest:
    """A step of the embedded profile's SpineNet-49, as its runs take it on a GPU: its kernels
    replayed, against started one by one.
    """
    profile = "smoke" if settings.quick else "embedded"
    recipe = compose_recipe("retinanet", profile=profile, data=None, changes=[], seed=0)
    size = recipe.train.batch_size
    load = Workload(side=recipe.data.transform.side, batch=size, classes=EMBEDDED_CLASSES["digits"])
    batch = draw(load, settings.device).for_ours(masks=False)

    def step(captured: bool) -> Step:
        network = build(recipe, load.classes).to(settings.device).train()
        if captured:
            bf16 = settings.precision == "bf16"
            with torch.autocast(settings.device, torch.bfloat16, enabled=bf16):
                capture(network, network_input(batch))
        return module_step(network, recipe, settings.precision, lambda: batch)

    return Contest(
        name="embedded RetinaNet SpineNet-49, step, captured",
        ours=Side("captured", step(captured=True), size),
        theirs=Side("kernel by kernel", step(captured=False), size),
        unit="pictures",
    )


def contest(
    name: str,
    config: RetinaNetConfig | MaskRCNNConfig,
    theirs: nn.Module,
    load: Workload,
    settings: Settings,
    their_precision: Precision | None = None,
) -> Contest:
    """Our detector's step against that of torchvision's, in pictures per second; theirs in the
    settings' precision unless another is named.
    """
    pictures, masks = draw(load, settings.device), isinstance(config, MaskRCNNConfig)
    a = our_step(config, load, pictures, settings)
    theirs_settings = replace(settings, precision=their_precision or settings.precision)
    b = torchvision_step(theirs, pictures, theirs_settings, masks=masks)
    return Contest(
        name=name,
        ours=Side("spinenet", a, load.batch),
        theirs=Side("torchvision", b, load.batch),
        unit="pictures",
        facts=lambda seconds: facts_of(seconds, a, b, load, settings),
    )


def _workload(settings: Settings) -> Workload:
    if settings.quick:
        return Workload(side=64, batch=2, objects=2, classes=5, regions=8)
    return Workload(side=640, batch=32) if settings.device == "cuda" else Workload()
