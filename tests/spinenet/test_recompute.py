"""Recomputed activations change the memory of a training step, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spinenet import zoo
from spinenet.backbone import SpineNet
from spinenet.config import LayerConfig, SpineNetConfig
from spinenet.detection.retinanet import build_retinanet
from spinenet.genotype import BlockSpec, Genotype
from spinenet.recompute import recompute_blocks

BOXES = torch.tensor([[8.0, 8, 40, 50]]).expand(2, 1, 4)
LABELS = torch.ones(2, 1, dtype=torch.long)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tiny(name: str, layers: LayerConfig) -> nn.Module:
    torch.manual_seed(0)
    config = zoo.model(name).retinanet(layers)
    small = {"width": 0.25, "endpoint_filters": 16}
    if isinstance(config.backbone, SpineNetConfig):
        small["block_repeats"] = 2
    head = replace(config.head, convs=1, filters=16)
    return build_retinanet(
        replace(config, backbone=replace(config.backbone, **small), head=head), 3
    ).train()


def of_detector(model: nn.Module) -> Tensor:
    return model.losses(IMAGES, BOXES, LABELS).total


def of_maps(backbone: nn.Module) -> Tensor:
    return sum(x.square().sum() for x in backbone(IMAGES).values())


def step(
    model: nn.Module, loss_of: Callable[[nn.Module], Tensor] = of_detector
) -> tuple[list[Tensor], int]:
    """Loss, gradients and buffers of one step, and the bytes that it kept for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model)
    stored = sum(kept.values())
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [loss.detach(), *gradients, *model.buffers()], stored


@pytest.mark.parametrize("name", ["spinenet-49", "r50-fpn", "mobile-spinenet-49"])
@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_a_step_is_the_same_to_the_bit_and_keeps_less(name, drop):
    plain = tiny(name, LayerConfig(stochastic_depth=drop))
    saving = copy.deepcopy(plain)
    assert recompute_blocks(saving.backbone) >= 16
    (expected, much), (found, little) = step(plain), step(saving)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert little < 0.7 * much


def test_a_compiled_step_is_the_same_to_the_bit_and_keeps_less():
    row = BlockSpec(3, "bottleneck", (0,), is_output=True)
    config = SpineNetConfig(genotype=Genotype("one row", (2,), (row,)), endpoint_filters=8)
    plain = SpineNet(config, LayerConfig(stochastic_depth=0.5)).train()
    saving = copy.deepcopy(plain)
    recompute_blocks(saving)
    found, kept = [], []
    for backbone in (plain, saving):
        torch._dynamo.reset()
        compiled: nn.Module = torch.compile(backbone, fullgraph=True, backend="aot_eager")  # type: ignore[assignment]
        values, stored = step(compiled, of_maps)
        found.append(values)
        kept.append(stored)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert kept[1] < 0.7 * kept[0]


def test_frozen_norms_stay_frozen():
    model = tiny("spinenet-49", LayerConfig())
    recompute_blocks(model.backbone)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.eval()
    before = [norm.running_mean.clone() for norm in norms]
    step(model)
    assert all(torch.equal(n.running_mean, b) for n, b in zip(norms, before, strict=True))
    assert all(norm.momentum > 0 for norm in norms)


def test_another_module_is_refused():
    with pytest.raises(TypeError, match="Linear is no backbone"):
        recompute_blocks(nn.Linear(2, 2))
