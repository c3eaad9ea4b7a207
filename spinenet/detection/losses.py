"""RetinaNet's losses with SpineNet's constants.

Focal loss with alpha 0.25 and gamma 1.5; Huber loss with delta 0.1 on the box codes; total = class
+ 50 * box. Both sums are divided by the number of positive anchors plus one, the box sum also by
the four coordinates (tensorflow/tpu: modeling/losses.py and configs/retinanet_config.py). Codes
whose target is exactly 0 are masked in `tf1` only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from spinenet.config import Flavor
from spinenet.detection.config import LossConfig
from spinenet.detection.matching import Targets


class Losses(NamedTuple):
    """Scalars; `total` is what is minimised, `positives` the normaliser's count."""

    total: Tensor
    classification: Tensor
    box: Tensor
    positives: Tensor


def detection_losses(
    logits: Tensor, codes: Tensor, targets: Targets, config: LossConfig, flavor: Flavor
) -> Losses:
    """Losses of `logits` (B, A, K) and `codes` (B, A, 4), in float32, against matched targets."""
    logits, codes = logits.float(), codes.float()
    positive = targets.positive
    count = positive.sum().float()
    scale = 1.0
    if config.normalizer == "global" and dist.is_available() and dist.is_initialized():
        # Gradients are averaged over processes, so each one's share of the global sum is scaled
        # back up.
        dist.all_reduce(count)
        scale = float(dist.get_world_size())
    share = scale / (count + 1)
    classification = (
        focal_loss(logits, targets.labels, config.focal_alpha, config.focal_gamma) * share
    )
    element = huber(codes, targets.codes, config.huber_delta)
    if flavor == "tf1":
        element = element * (targets.codes != 0)
    box = (element * positive[..., None]).sum() / 4 * share
    return Losses(classification + config.box_weight * box, classification, box, count)


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum over anchors and classes of the focal loss of `logits` (B, A, K) for `labels` (B, A), 0 =
    background.

    Channel 0 is the background's own output; like the official head it only ever sees negatives.
    """
    total: Tensor = _FocalSum.apply(logits, labels, alpha, gamma)
    return total


class _FocalSum(torch.autograd.Function):
    """Loss and gradient in one sweep over the logits: the largest tensors of a step are read once,
    and only the gradient is kept.

    Every element counts as if negative, then each anchor's own class is corrected: no one-hot
    tensor, no synchronisation.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
        target = labels[..., None]  # (B, A, 1)
        own, is_object = logits.gather(2, target), target > 0
        loss, slope = _modulated(logits, gamma)  # (B, A, K)
        missed, missed_slope = _modulated(-own, gamma)  # (B, A, 1), as this does
        wrong, wrong_slope = _modulated(own, gamma)
        correction = (alpha * missed - (1 - alpha) * wrong) * is_object
        change = (-alpha * missed_slope - (1 - alpha) * wrong_slope) * is_object
        ctx.save_for_backward(slope.mul_(1 - alpha).scatter_add_(2, target, change))
        return (1 - alpha) * loss.sum() + correction.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None, None


def _modulated(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """p**gamma * -log(1 - p) with p = sigmoid(x), elementwise, and its derivative by x."""
    p, entropy = torch.sigmoid(x), F.softplus(x)
    factor = (
        p * p.sqrt() if gamma == 1.5 else p.pow(gamma)
    )  # the paper's gamma, several times faster
    value = factor * entropy
    return value, entropy.mul_(1 - p).mul_(gamma).add_(p).mul_(factor)


def huber(prediction: Tensor, target: Tensor, delta: float) -> Tensor:
    """Elementwise Huber loss, quadratic within `delta` of the target."""
    return F.huber_loss(prediction, target, reduction="none", delta=delta)
