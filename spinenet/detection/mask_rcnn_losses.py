"""Mask R-CNN's five losses with the official constants; their plain sum is minimised.

Anchors' scores: cross-entropy, summed over the sampled anchors and divided by their nominal number.
Anchors' codes: Huber with delta 1/9, a mean over the positives of each level, summed over levels.
Regions' classes: mean cross-entropy. Regions' codes: Huber with delta 1, a mean over the positives.
Masks: mean cross-entropy over the cells of the positives (tensorflow/tpu: modeling/losses.py; Model
Garden: losses/maskrcnn_losses.py).

The code bases differ in details kept here: which elements a mean counts, how it avoids dividing by
zero, and the nominal number of sampled anchors, for which the Model Garden takes that of regions
(tasks/maskrcnn.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from spinenet.config import Flavor
from spinenet.detection.config import MaskRCNNLossConfig
from spinenet.detection.losses import huber
from spinenet.detection.rpn import RPNOutput, RPNTargets


class MaskRCNNLosses(NamedTuple):
    """Scalars; `total` is what is minimised, `positives` the number of positive regions."""

    total: Tensor
    rpn_score: Tensor
    rpn_box: Tensor
    classification: Tensor
    box: Tensor
    mask: Tensor
    positives: Tensor


def rpn_score_loss(logits: Tensor, targets: RPNTargets, nominal: int) -> Tensor:
    """Of `logits` (B, A); `nominal` is the number of samples that a picture counts as."""
    loss = F.binary_cross_entropy_with_logits(
        logits.float(), targets.positive.float(), reduction="none"
    )
    return (loss * targets.sampled).sum() / (len(logits) * nominal)


def rpn_box_loss(
    output: RPNOutput, targets: RPNTargets, config: MaskRCNNLossConfig, flavor: Flavor
) -> Tensor:
    """Of the head's codes; all positive anchors count, sampled or not."""
    counts = targets.positive[..., None].expand_as(targets.codes)
    if flavor == "tf1":
        counts = counts & (targets.codes != 0)
    loss = huber(output.codes.float(), targets.codes, config.rpn_huber_delta) * counts
    total, count = (
        torch.stack([level.sum() for level in x.split(output.anchors_per_level, 1)])
        for x in (loss, counts.float())
    )
    return _mean(total, count, config, flavor).sum()


def region_losses(
    logits: Tensor,
    codes: Tensor,
    labels: Tensor,
    wanted: Tensor,
    config: MaskRCNNLossConfig,
    flavor: Flavor,
) -> tuple[Tensor, Tensor]:
    """Class and box loss of regions: `logits` (N, K), `codes` (N, K, 4) against `labels` (N,) and
    the codes `wanted` (N, 4).
    """
    classification = F.cross_entropy(logits.float(), labels)
    own = codes.float()[torch.arange(len(labels), device=labels.device), labels]
    positive = (labels > 0).float()
    loss = huber(own, wanted, config.box_huber_delta).sum(1) * positive
    return classification, _mean(loss.sum(), 4 * positive.sum(), config, flavor)


def mask_loss(
    logits: Tensor, wanted: Tensor, labels: Tensor, config: MaskRCNNLossConfig, flavor: Flavor
) -> Tensor:
    """Of mask `logits` (N, S, S) against `wanted` (N, S, S) in [0, 1], where `labels` (N,) > 0."""
    positive = (labels > 0).float()
    loss = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none")
    cells = loss[0].numel()
    return _mean((loss.sum((1, 2)) * positive).sum(), cells * positive.sum(), config, flavor)


def _mean(total: Tensor, count: Tensor, config: MaskRCNNLossConfig, flavor: Flavor) -> Tensor:
    """`total` over `count`, 0 where nothing counts."""
    scale = 1.0
    if config.normalizer == "global" and dist.is_available() and dist.is_initialized():
        # Gradients are averaged over processes, so each one's share of the global sum is scaled
        # back up.
        dist.all_reduce(count)
        scale = float(dist.get_world_size())
    return total * scale / (count.clamp(min=1) if flavor == "tf1" else count + 0.01)
