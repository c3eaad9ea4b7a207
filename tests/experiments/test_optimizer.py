"""One step of SGD is the official one: weight decay is clipped with the rest of the gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from datamodules import CocoIndex, DigitsConfig, TransformConfig
from experiments.module import DetectionModule
from experiments.optimizer import add_l2, build_optimizer
from experiments.recipe import (
    CLIPPED_L2_VERSION,
    RECIPE_VERSION,
    DataConfig,
    OptimConfig,
    Recipe,
    TrainConfig,
    _version,
)
from spinenet.backbone import SpineNetConfig
from spinenet.detection.head import HeadConfig
from spinenet.detection.retinanet import RetinaNetConfig, build_retinanet
from spinenet.layers import LayerConfig
from tests.reference.official_names import tf2_keys
from tests.reference.official_weights import fill_network, load, picture, variables

REFERENCE = load("retinanet_tiny_tf2")


def one_step(optim: OptimConfig) -> dict[str, torch.Tensor]:
    """What SGD remembers after the Model Garden's tiny detector's first step, by parameter: the
    clipped gradient on eight pictures.
    """
    model = RetinaNetConfig(
        backbone=SpineNetConfig(width=0.125, block_repeats=2, endpoint_filters=24),
        layers=LayerConfig(flavor="tf2", activation="swish", bn_epsilon=1e-3),
        head=HeadConfig(convs=4, filters=24),
    )
    network, listed = build_retinanet(model, num_classes=91), variables("tiny_tf2")
    key = tf2_keys(v.name for v in listed)
    fill_network(network, {key[v.name]: v.value for v in listed})
    recipe = Recipe(model=model, optim=optim, train=TrainConfig(batch_size=8))
    index = CocoIndex(annotation_file=Path(), image_dir=Path(), images=(), categories={})
    module = DetectionModule(network, recipe, index=index)
    batch = {
        "image": picture(8, 128, 128),
        "boxes": torch.from_numpy(REFERENCE["step_gt_boxes"][..., [1, 0, 3, 2]]),
        "labels": torch.from_numpy(REFERENCE["step_gt_classes"]),
    }
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        gradient_clip_val=optim.clip_norm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([batch], batch_size=None))
    state: Any = trainer.optimizers[0].state
    return {name: state[p]["momentum_buffer"] for name, p in network.named_parameters()}


def test_the_first_step_is_the_official_ones_weight_decay_and_clipping_included():
    remembered = one_step(OptimConfig(weight_decay=4e-5, clip_norm=10.0))
    compared = 0
    names = tf2_keys(v.name for v in variables("tiny_tf2")).items()
    rows = zip(names, REFERENCE["step_l2"], REFERENCE["step_first4"], strict=True)
    for (official, ours), norm, first in rows:
        if np.isnan(norm):
            assert ours not in remembered  # a moving statistic
            continue
        if "net-conv_" in official and official.endswith(".bias"):
            continue  # a norm comes after it, so its gradient is rounding alone
        found = remembered[ours]
        assert found.norm().item() == pytest.approx(norm, rel=0.03), official
        as_stored = found.permute(2, 3, 1, 0) if found.dim() == 4 else found
        start = as_stored.reshape(-1)[:4].numpy()
        np.testing.assert_allclose(start, first[: len(start)], rtol=0, atol=0.03 * norm)
        compared += 1
    assert compared == 631 - 8
    whole = torch.stack([gradient.norm() for gradient in remembered.values()]).norm()
    assert whole.item() == pytest.approx(10.0, rel=1e-5)


def test_weight_decay_added_after_clipping_would_show_in_that_step():
    # Level 7's kernels: added after clipping, weight decay would be thrice what the norm leaves.
    norms = dict(zip((v.name for v in variables("tiny_tf2")), REFERENCE["step_l2"], strict=True))
    kernel = next(v for v in variables("tiny_tf2") if v.name == "block14.rep1.conv3.kernel")
    assert 4e-5 * kernel.value.norm().item() > 3 * norms[kernel.name]


@pytest.mark.parametrize(
    ("optim", "clipped"),
    [
        (OptimConfig(), True),
        (OptimConfig(clip_norm=0), False),
        (OptimConfig(name="adamw"), False),
        (OptimConfig(weight_decay=0), False),
    ],
)
def test_weight_decay_is_clipped_in_sgd_alone_and_only_where_there_is_clipping(
    optim: OptimConfig, clipped: bool
):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = build_optimizer(model, Recipe(optim=optim))
    kernels, others = optimizer.param_groups
    assert kernels["weight_decay"] == (0 if clipped else optim.weight_decay)
    assert others["weight_decay"] == 0
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    add_l2(optimizer)
    added = {name: p.grad.clone() for name, p in model.named_parameters()}
    decayed = added.pop("0.weight")
    assert torch.equal(decayed, model[0].weight.detach() * (4e-5 if clipped else 0))
    assert not any(gradient.any() for gradient in added.values())
    optimizer.zero_grad()
    add_l2(optimizer)  # without any gradient there is nothing to add to
    assert all(p.grad is None for p in model.parameters())


def test_only_recipes_whose_weight_decay_is_clipped_have_the_version_of_that():
    as_it_is = TransformConfig(side=128, flip=False, scale_jitter=(1.0, 1.0))
    data = DataConfig(DigitsConfig(side=128), as_it_is)
    changed, same = Recipe(data=data), Recipe(data=data, optim=OptimConfig(clip_norm=0))
    assert (_version(changed), _version(same)) == (CLIPPED_L2_VERSION, RECIPE_VERSION)
