import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official_weights import load

from spinenet.detection.config import MaskRCNNLossConfig
from spinenet.detection.losses import LossConfig, detection_losses, focal_loss, huber
from spinenet.detection.matching import Targets

OPERATIONS = load("operations")


@pytest.mark.parametrize(("row", "gamma"), enumerate(["1.5", "2"]))
def test_focal_loss_is_the_official_one(row: int, gamma: str):
    logits = torch.from_numpy(OPERATIONS["focal_logits"])
    labels = torch.from_numpy(OPERATIONS["focal_labels"]).clamp(min=0)  # theirs: -1 for background
    weighed = torch.from_numpy(OPERATIONS["focal_weights"]) > 0  # all are 0 or 1
    plain, weighted = OPERATIONS["focal_sum"][row]

    def ours(logits: torch.Tensor, labels: torch.Tensor) -> float:
        return focal_loss(logits[None], labels[None], 0.25, float(gamma)).item()

    assert ours(logits.flatten(0, 1), labels.flatten()) == pytest.approx(plain, rel=1e-5)
    assert ours(logits[weighed], labels[weighed]) == pytest.approx(weighted, rel=1e-5)
    for at, anchor in np.ndenumerate(OPERATIONS[f"focal_anchor_a0.25_g{gamma}"]):
        assert ours(logits[at][None], labels[at][None]) == pytest.approx(anchor, rel=1e-5), at


@pytest.mark.parametrize("delta", ["0.1", "1"])
def test_huber_loss_is_the_official_one(delta: str):
    pred, true = (torch.from_numpy(OPERATIONS[f"huber_{name}"]) for name in ("pred", "true"))
    ours = huber(pred, true, float(delta)).mean(-1)
    np.testing.assert_allclose(ours, OPERATIONS[f"huber_none_d{delta}"], rtol=1e-5, atol=1e-7)


def obvious_losses(logits, labels, codes, wanted, config: LossConfig, masks_zeros: bool):
    """Class loss, box loss and positives of a batch of nested lists, from the definitions."""
    classification, box, positives = 0.0, 0.0, 0
    for image_logits, image_labels, image_codes, image_wanted in zip(
        logits, labels, codes, wanted, strict=True
    ):
        for anchor, label in enumerate(image_labels):
            for k, logit in enumerate(image_logits[anchor]):
                p = 1 / (1 + math.exp(-logit))
                is_target = k == label and label > 0
                p_true, alpha = (p, 0.25) if is_target else (1 - p, 0.75)
                classification -= alpha * (1 - p_true) ** config.focal_gamma * math.log(p_true)
            if label == 0:
                continue
            positives += 1
            for code, target in zip(image_codes[anchor], image_wanted[anchor], strict=True):
                if masks_zeros and target == 0:
                    continue
                error, delta = abs(code - target), config.huber_delta
                box += error**2 / 2 if error <= delta else delta * (error - delta / 2)
    return classification / (positives + 1), box / 4 / (positives + 1), positives


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.2, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_losses_are_the_obvious_loop(flavor: str, seed: int, batch: int, share: float):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 7, 5, generator=generator) * 3
    labels = torch.randint(1, 5, (batch, 7), generator=generator)
    labels *= torch.rand(batch, 7, generator=generator) < share
    codes, wanted = torch.randn(2, batch, 7, 4, generator=generator) / 4
    wanted *= (torch.rand(batch, 7, 4, generator=generator) < 0.7) & (labels > 0)[..., None]
    config = LossConfig()
    ours = detection_losses(
        logits, codes, Targets(labels, wanted, torch.zeros(batch, 7)), config, flavor
    )  # type: ignore[arg-type]
    classification, box, positives = obvious_losses(
        *(t.tolist() for t in (logits, labels, codes, wanted)), config, flavor == "tf1"
    )
    assert ours.classification.item() == pytest.approx(classification, rel=1e-4)
    assert ours.box.item() == pytest.approx(box, rel=1e-4, abs=1e-7)
    assert ours.total.item() == pytest.approx(classification + 50 * box, rel=1e-4)
    assert ours.positives.item() == positives


def test_losses_stay_finite_and_have_gradients_at_extreme_logits():
    logits = torch.tensor([[[100.0, -100.0, 100.0], [-100.0, 100.0, -100.0]]], requires_grad=True)
    codes = torch.full((1, 2, 4), 1e4, requires_grad=True)
    targets = Targets(torch.tensor([[1, 0]]), torch.ones(1, 2, 4), torch.zeros(1, 2))
    losses = detection_losses(logits, codes, targets, LossConfig(), "tf1")
    losses.total.backward()
    assert losses.total.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert codes.grad is not None
    assert not codes.grad[0, 1].any()  # no box to learn off the positives


@pytest.mark.parametrize("config", [LossConfig, MaskRCNNLossConfig])
def test_an_unknown_normalizer_is_refused_with_the_known_ones(config: type):
    with pytest.raises(
        ValueError, match=r"loss\.normalizer 'globl' is unknown; known: global, repl"
    ):
        config(normalizer="globl")


def test_losses_of_half_precision_outputs_are_float32():
    logits, codes = torch.zeros(1, 2, 3).bfloat16(), torch.zeros(1, 2, 4).bfloat16()
    targets = Targets(torch.tensor([[1, 0]]), torch.ones(1, 2, 4), torch.zeros(1, 2))
    losses = detection_losses(logits, codes, targets, LossConfig(), "tf2")
    assert {t.dtype for t in losses} == {torch.float32}


@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_the_gradient_of_the_focal_loss_is_that_of_its_value(gamma: float):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64) * 4
    labels = torch.randint(0, 4, (2, 5), generator=generator)
    assert 0 < labels.count_nonzero() < labels.numel()
    assert torch.autograd.gradcheck(
        lambda x: 3 * focal_loss(x, labels, 0.25, gamma), logits.requires_grad_()
    )
