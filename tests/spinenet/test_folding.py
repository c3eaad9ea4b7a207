"""Folded networks give the same outputs with no norm left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spinenet import zoo
from spinenet.classification import build_classifier
from spinenet.detection.retinanet import build_retinanet
from spinenet.folding import folded


def with_statistics(model: nn.Module) -> nn.Module:
    """Norms that do something, as after training."""
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 1.5),
                (norm.weight.data, 0.5, 1.5),
                (norm.bias.data, -0.2, 0.2),
            ):
                value.uniform_(low, high, generator=generator)
    return model.eval()


# In FPN, P5 and P6 also go to the next level, without their norms, which therefore stay.
@pytest.mark.parametrize(
    ("name", "left"),
    [("spinenet-49s", 0), ("r50-fpn", 2), ("r50-nas-fpn", 0), ("mobile-spinenet-49xs", 0)],
)
@torch.no_grad()
def test_a_folded_detector_gives_the_same_outputs(name, left):
    model = with_statistics(build_retinanet(zoo.model(name).retinanet(), 5))
    images = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(1))
    twin = folded(model, images[:1, :, :64, :64])
    assert sum(isinstance(m, nn.BatchNorm2d) for m in twin.modules()) == left
    for ours, theirs in zip(twin(images), model(images), strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@torch.no_grad()
def test_a_folded_classifier_gives_the_same_outputs():
    model = with_statistics(build_classifier(zoo.model("spinenet-49").classifier(), 7))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    twin = folded(model, images)
    torch.testing.assert_close(twin(images), model(images), rtol=1e-3, atol=1e-4)


class ReadTwice(nn.Module):
    def __init__(self, *, returned: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.returned = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), returned

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.conv(x)
        return (self.norm(y), y) if self.returned else (self.norm(y) + y,)


@pytest.mark.parametrize("returned", [True, False])
def test_a_convolution_that_something_else_reads_too_keeps_its_norm(returned):
    twin = folded(ReadTwice(returned=returned), torch.zeros(1, 3, 2, 2))
    assert isinstance(twin.get_submodule("norm"), nn.BatchNorm2d)


def test_the_model_itself_stays_as_it_was():
    model = with_statistics(build_retinanet(zoo.model("spinenet-49s").retinanet(), 5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded(model, torch.zeros(1, 3, 64, 64))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
