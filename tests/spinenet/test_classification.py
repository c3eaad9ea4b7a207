from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spinenet.backbone import SpineNetConfig
from spinenet.classification import (
    Classifier,
    ClassifierConfig,
    build_classifier,
    mean_of_levels,
)
from spinenet.complexity import complexity
from spinenet.config import ResNetConfig
from spinenet.layers import LayerConfig

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "classification.npz")

TINY = SpineNetConfig(width=0.0625, endpoint_filters=8)
TINY_RESNET = ResNetConfig(width=0.0625)

# Backbone; multiply-adds in 1e9 and parameters in 1e6 as tables 7 and 11 print them for ImageNet
# and for iNaturalist-2017, at 224 pixels.
PRINTED = {
    "ResNet-34": (ResNetConfig(depth=34), 3.7, 21.8, 23.9),
    "ResNet-50": (ResNetConfig(depth=50), 4.1, 25.6, 33.9),
    "ResNet-101": (ResNetConfig(depth=101), 7.8, 44.6, 52.9),
    "ResNet-152": (ResNetConfig(depth=152), 11.5, 60.2, 68.6),
    "SpineNet-49": (SpineNetConfig(), 3.5, 22.1, 23.1),
    "SpineNet-96": (SpineNetConfig(block_repeats=2), 5.7, 36.5, 37.6),
    "SpineNet-143": (SpineNetConfig(block_repeats=3, resample_alpha=1.0), 9.1, 60.5, 61.6),
    "SpineNet-190": (
        SpineNetConfig(width=1.3, block_repeats=4, resample_alpha=1.0, endpoint_filters=512),
        19.1,
        127.1,
        129.2,
    ),
}


def classifier(backbone, num_classes: int = 5, **options) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(ClassifierConfig(backbone=backbone, **options), num_classes)


@pytest.mark.parametrize("name", PRINTED)
def test_counts_are_the_printed_ones_to_the_last_digit(name: str):
    backbone, macs_b, imagenet_m, inaturalist_m = PRINTED[name]
    with torch.device("meta"):
        model = classifier(backbone, 1001)
    counted = complexity(model, 224)
    assert round(counted.macs_b, 1) == macs_b
    assert round(counted.params_m, 1) == imagenet_m
    per_class = model.linear.in_features + 1
    assert round(counted.params_m + (5089 - 1001) * per_class / 1e6, 1) == inaturalist_m


@pytest.mark.parametrize(("case", "size"), [("224", (224, 224)), ("160x200", (160, 200))])
def test_levels_are_averaged_as_the_official_head_does(case: str, size: tuple[int, int]):
    random = np.random.RandomState(3)
    features = {
        level: torch.from_numpy(
            random.randn(2, -(-size[0] // 2**level), -(-size[1] // 2**level), 5).astype("f4")
        ).permute(0, 3, 1, 2)
        for level in range(3, 8)
    }
    weight = torch.from_numpy(random.randn(5, 7).astype("f4"))
    official = torch.from_numpy(REFERENCE[f"head_{case}"])
    torch.testing.assert_close(mean_of_levels(features) @ weight, official, atol=1e-5, rtol=1e-5)

    # Enlarging every level at once is not the same where sizes do not divide.
    finest = features[3].shape[-2:]
    at_once = [F.interpolate(x, size=finest, mode="nearest") for x in features.values()]
    other = torch.stack(at_once).mean(dim=(0, 3, 4)) @ weight
    assert (other - official).abs().max() > 1e-3


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
@pytest.mark.parametrize("backbone", [TINY, TINY_RESNET, ResNetConfig(depth=34, width=0.0625)])
def test_logits_have_exactly_the_classes_asked_for(backbone, flavor):
    model = classifier(backbone, 13, layers=LayerConfig(flavor=flavor)).eval()
    for size in ((64, 64), (70, 45)):
        assert model(torch.randn(2, 3, *size)).shape == (2, 13)


def test_a_resnet_is_classified_by_its_pooled_last_stage():
    model = classifier(TINY_RESNET).eval()
    images = torch.randn(2, 3, 64, 96)
    last = model.backbone.body(images)[-1]
    assert last.shape == (2, model.linear.in_features, 2, 3)
    torch.testing.assert_close(model(images), model.linear(last.mean((2, 3))))


@pytest.mark.parametrize(("depth", "projections"), [(34, 3), (50, 4), (101, 4), (152, 4)])
def test_depth_counts_the_convolutions_and_the_linear_layer(depth, projections):
    with torch.device("meta"):
        model = classifier(ResNetConfig(depth=depth))
    convolutions = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert convolutions - projections + 1 == depth


def test_the_linear_layer_starts_small_and_without_bias():
    linear = classifier(TINY, 4000).linear
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not linear.bias.any()


def test_default_norms_are_the_official_ones_for_classification():
    norms = [m for m in classifier(TINY).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.1, 1e-5)}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_official_one(smoothing, monkeypatch):
    logits = torch.from_numpy(np.random.RandomState(5).randn(6, 11).astype("f4") * 3)
    labels = torch.tensor([0, 3, 10, 5, 5, 1])
    model = classifier(TINY, 11, label_smoothing=smoothing)
    monkeypatch.setattr(model, "forward", lambda images: logits)
    loss = model.loss(torch.empty(6, 3, 8, 8), labels)
    assert loss.item() == pytest.approx(float(REFERENCE[f"loss_{smoothing}"]), rel=1e-6)
    monkeypatch.setattr(model, "forward", lambda images: logits.bfloat16())
    assert model.loss(torch.empty(6, 3, 8, 8), labels).dtype == torch.float32


@pytest.mark.parametrize("backbone", [TINY, TINY_RESNET])
def test_a_few_steps_learn_a_batch_by_heart(backbone):
    model = classifier(backbone, 4)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    start = model.loss(images, labels).item()
    for _ in range(40):
        optimizer.zero_grad()
        loss = model.loss(images, labels)
        loss.backward()
        optimizer.step()
    assert start == pytest.approx(np.log(4), abs=0.2)
    assert loss.item() < 0.3
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNetConfig(depth=18), "depth 18 is unknown; known: 34, 50, 101, 152"),
        (lambda: ResNetConfig(width=0.01), "width 0.01 leaves a layer without channels"),
        (lambda: ClassifierConfig(label_smoothing=1.0), r"label_smoothing 1.0 must be in \[0, 1\)"),
    ],
)
def test_impossible_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
