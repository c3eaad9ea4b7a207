"""Detectors to be timed, ours and torchvision's, on the same drawn pictures and objects.

torchvision's take pictures of 0..1 and targets by picture, normalise and batch them in their
forward; ours take a padded batch that is normalised already. Both are channels-last. Ours is the
project's own step: `DetectionModule` on a recipe's network, with the recipe's optimiser and
clipping; theirs is that of torchvision's reference training, SGD with momentum.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import (
    RetinaNet,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    retinanet_resnet50_fpn,
)

from datamodules import CocoIndex
from datamodules.detection import MASK_CELLS
from datamodules.transforms import MEAN_RGB, STD_RGB
from experiments.bench.breakdown import in_words, shares
from experiments.bench.contest import Precision, Settings
from experiments.bench.limits import peak_share
from experiments.module import DetectionModule
from experiments.networks import build, compile_network
from experiments.optimizer import add_l2, build_optimizer
from experiments.recipe import Recipe, TrainConfig
from spinenet.config import LayerConfig
from spinenet.detection.config import MaskRCNNConfig, RetinaNetConfig
from spinenet.detection.retinanet import build_backbone
from spinenet.torchvision_models import TorchvisionBackbone
from spinenet.zoo import BackboneConfig, Model

Step = Callable[[], object]
Version = Literal[1, 2]  # of torchvision's Mask R-CNN

LR = 1e-3  # small, since one batch is learned again and again
P7 = 128  # pixels per cell of the coarsest level


@dataclass(frozen=True)
class Workload:
    """What a step is given: pictures of `side` pixels in a batch, and what is on each."""

    side: int = 256
    batch: int = 4
    objects: int = 7
    classes: int = 91  # the background included
    regions: int = 512  # per picture that the second stage trains on


@dataclass(frozen=True)
class Pictures:
    """A drawn batch; `pixels` (B, 3, S, S) of 0..1, `boxes` (B, M, 4) corners, `labels` (B, M)."""

    pixels: Tensor
    boxes: Tensor
    labels: Tensor

    def for_ours(self, masks: bool) -> dict[str, Tensor]:
        """The batch that `DetectionDataModule` would give; every object's mask is an ellipse."""
        image = (self.pixels * 255 - MEAN_RGB.to(self.pixels)) / STD_RGB.to(self.pixels)
        batch = {"image": image, "boxes": self.boxes, "labels": self.labels}
        if masks:
            centres = (torch.arange(MASK_CELLS, device=image.device) + 0.5) / MASK_CELLS * 2 - 1
            inside = centres[:, None] ** 2 + centres[None, :] ** 2 <= 1
            shape = (*self.labels.shape, MASK_CELLS, MASK_CELLS)
            batch["masks"] = (inside * 255).to(torch.uint8).expand(shape).contiguous()
        return batch

    def for_torchvision(self, masks: bool) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """The same as torchvision wants it."""
        targets = [
            {"boxes": boxes, "labels": labels}
            | ({"masks": _ellipses(boxes, self.pixels.shape[-1])} if masks else {})
            for boxes, labels in zip(self.boxes, self.labels, strict=True)
        ]
        return list(self.pixels), targets


def draw(load: Workload, device: str) -> Pictures:
    """Noise with boxes of 8 pixels to most of the picture, their sides spread evenly in octaves."""
    rng, shape = np.random.default_rng(0), (load.batch, load.objects)
    sides = np.exp(rng.uniform(np.log(8), np.log(0.9 * load.side), (*shape, 2)))
    corners = rng.random((*shape, 2)) * (load.side - sides)
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], axis=-1)).float()
    labels = torch.from_numpy(rng.integers(1, load.classes, shape))
    pixels = torch.from_numpy(rng.random((load.batch, 3, load.side, load.side), np.float32))
    return Pictures(pixels.to(device), boxes.to(device), labels.to(device))


def _ellipses(boxes: Tensor, side: int) -> Tensor:
    """uint8 (M, S, S): the ellipse in each box."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    cells = torch.arange(side, device=boxes.device) + 0.5
    x, y = ((cells - middle[:, i, None]) / half[:, i, None] for i in (0, 1))  # (M, S) each
    return (y[:, :, None] ** 2 + x[:, None, :] ** 2 <= 1).to(torch.uint8)


def our_step(
    config: RetinaNetConfig | MaskRCNNConfig, load: Workload, pictures: Pictures, settings: Settings
) -> Step:
    """One training step of a recipe's network on the pictures."""
    recipe = Recipe(model=config, train=TrainConfig(batch_size=load.batch))
    network = build(recipe, load.classes).to(settings.device)
    if settings.compiled:
        compile_network(network)
    batch = pictures.for_ours(masks=isinstance(config, MaskRCNNConfig))
    return module_step(network, recipe, settings.precision, lambda: batch)


def module_step(
    network: nn.Module, recipe: Recipe, precision: Precision, next_batch: Callable[[], Any]
) -> Step:
    """The project's training step on batch after batch, without a trainer around it."""
    module = DetectionModule(network, recipe, index=CocoIndex(Path(), Path(), (), {})).train()
    optimizer, clip_norm = build_optimizer(network, recipe), recipe.optim.clip_norm
    for group in optimizer.param_groups:
        group["lr"] = LR

    def loss() -> Tensor:
        with warnings.catch_warnings():
            # Lightning warns that nobody takes what the step logs.
            warnings.filterwarnings("ignore", message=".*self.trainer.*")
            return module.training_step(next_batch(), 0)

    return _step(network, optimizer, loss, precision, clip_norm)


def torchvision_step(
    network: nn.Module, pictures: Pictures, settings: Settings, *, masks: bool = False
) -> Step:
    """One training step of torchvision's detector on the pictures."""
    network = network.to(settings.device).to(memory_format=torch.channels_last).train()
    images, targets = pictures.for_torchvision(masks)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)

    def loss() -> Tensor:
        return torch.stack(list(network(images, targets).values())).sum()

    return _step(network, optimizer, loss, settings.precision, clip_norm=0.0)


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    precision: Precision,
    clip_norm: float,
) -> Step:
    device = next(network.parameters()).device.type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            total = loss()
        optimizer.zero_grad()
        total.backward()
        add_l2(optimizer)  # theirs has none, its SGD decays by itself
        if clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        optimizer.step()

    return step


def torchvision_retinanet(load: Workload, backbone: BackboneConfig | None = None) -> nn.Module:
    """torchvision's RetinaNet as it comes, R50-FPN with all layers trained, or on one of our
    backbones.
    """
    sizes = {"min_size": load.side, "max_size": load.side}
    if backbone is None:
        return retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=load.classes, **sizes
        )
    body = TorchvisionBackbone(build_backbone(backbone, LayerConfig()))
    return RetinaNet(body, load.classes, size_divisible=P7, **sizes)


def torchvision_mask_rcnn(load: Workload, version: Version) -> nn.Module:
    """torchvision's Mask R-CNN on R50-FPN as it comes, all layers trained; version 2 has the heads
    with convolutions and norms, as the official ones are.
    """
    build = maskrcnn_resnet50_fpn if version == 1 else maskrcnn_resnet50_fpn_v2
    return build(
        weights=None,
        weights_backbone=None,
        num_classes=load.classes,
        min_size=load.side,
        max_size=load.side,
        box_batch_size_per_image=load.regions,
    )


def narrow(network: Model) -> Model:
    """A network of the zoo with few filters, for toy sizes."""
    backbone = replace(network.backbone, width=0.0625, endpoint_filters=8)
    return replace(network, backbone=backbone, head=replace(network.head, filters=8, convs=1))


def facts_of(
    seconds: float, ours: Step, theirs: Step, load: Workload, settings: Settings
) -> dict[str, Any]:
    """Multiply-adds of a step for a picture, forward and backward, in 1e9; where our `seconds` go;
    on a GPU whose peak is known the share of that; and a note.
    """
    macs = {
        name: _macs(step) / load.batch / 1e9 for name, step in (("ours", ours), ("theirs", theirs))
    }
    asked = f"{load.batch} pictures of {load.side} pixels, {load.objects} objects on each"
    note = f"{asked}; {macs['ours']:.3g} B multiply-adds a picture, theirs {macs['theirs']:.3g} B"
    parts = shares(ours, settings.device)
    note += f"; {in_words(parts)}"
    peak, said = peak_share(macs["ours"] * 1e9 * load.batch, seconds, settings)
    facts = {"macs_b": macs, "workload": asdict(load), "shares": parts}
    return facts | peak | {"note": note + said}


def _macs(step: Step) -> float:
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 2
