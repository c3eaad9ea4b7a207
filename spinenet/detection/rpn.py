"""The region proposal network: its head, what it learns, and the proposals it makes.

Head: `convs` 3x3 convolutions shared over levels, each followed by the norm of the level at hand
and the activation, then 1x1 convolutions for one score and four codes per anchor (tensorflow/tpu:
modeling/architecture/heads.py, RpnHead). The released tensorflow/tpu code has one convolution
whatever its configuration says; the paper's SpineNet-190 counts seven.

Targets: positive from an overlap of 0.7 or as some object's best anchor, negative below 0.3. Scores
learn 256 random anchors per picture, at most half of them positive; codes learn all positives
(dataloader/anchor.py, RpnAnchorLabeler). Proposals: per level the best-scored boxes, suppressed at
0.7, then the best 1000 of the picture (ops/roi_ops.py).

Shapes: B images, A anchors of all levels in a row, M padded objects, P proposals.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from spinenet.config import Flavor, LayerConfig
from spinenet.detection.choosing import balanced_sample, best_after_nms, take
from spinenet.detection.config import MatchConfig, RPNConfig
from spinenet.detection.matching import match
from spinenet.detection.roi_codes import clip, decode_pixels


class RPNOutput(NamedTuple):
    """What the head says: `logits` (B, A), `codes` (B, A, 4), and the anchors of each level."""

    logits: Tensor
    codes: Tensor
    anchors_per_level: tuple[int, ...]


class RPNTargets(NamedTuple):
    """What the head should say: `positive` (B, A) bool, `codes` (B, A, 4), 0 off the positives; and
    the anchors `sampled` (B, A) bool, whose scores learn.
    """

    positive: Tensor
    sampled: Tensor
    codes: Tensor


class Proposals(NamedTuple):
    """Padded proposals, best first: `boxes` (B, P, 4), `real` (B, P) bool."""

    boxes: Tensor
    real: Tensor


class RPNHead(nn.Module):
    """forward: {level: (B, inputs, H, W)} → RPNOutput, the anchors of all levels in a row."""

    def __init__(
        self, config: RPNConfig, layers: LayerConfig, *, inputs: int, levels: Iterable[int]
    ) -> None:
        super().__init__()
        widths = [inputs] + [config.filters] * config.convs
        self.convs = nn.ModuleList(layers.conv(a, b, 3, bias=True) for a, b in pairwise(widths))
        self.norms = nn.ModuleDict(
            {
                str(level): nn.ModuleList(layers.norm(config.filters) for _ in self.convs)
                for level in levels
            }
        )
        self.act = layers.act()
        anchors = config.anchors.per_cell
        self.scores = layers.conv(widths[-1], anchors, 1, bias=True)
        self.boxes = layers.conv(widths[-1], 4 * anchors, 1, bias=True)
        for conv in cast(Iterable[nn.Conv2d], (*self.convs, self.scores, self.boxes)):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, conv.bias))
        if layers.flavor == "tf2":
            nn.init.normal_(self.scores.weight, std=1e-5)
            nn.init.normal_(self.boxes.weight, std=1e-5)

    def forward(self, features: dict[int, Tensor]) -> RPNOutput:
        levels = [self._level(x, str(level)) for level, x in features.items()]
        logits, codes = zip(*levels, strict=True)
        return RPNOutput(
            torch.cat(logits, 1), torch.cat(codes, 1), tuple(part.shape[1] for part in logits)
        )

    def _level(self, x: Tensor, level: str) -> tuple[Tensor, Tensor]:
        for conv, norm in zip(self.convs, cast(nn.ModuleList, self.norms[level]), strict=True):
            x = self.act(norm(conv(x)))
        scores, boxes = (predict(x).permute(0, 2, 3, 1) for predict in (self.scores, self.boxes))
        return scores.flatten(1), boxes.unflatten(3, (-1, 4)).flatten(1, 3)


@torch.no_grad()
def rpn_targets(anchors: Tensor, boxes: Tensor, labels: Tensor, config: RPNConfig) -> RPNTargets:
    """Targets of `anchors` (A, 4) for `boxes` (B, M, 4) with `labels` (B, M), 0 where padded."""
    matched = match(anchors, boxes, labels, MatchConfig(config.positive_iou))
    overlap = matched.overlap.clamp(min=0)  # of a picture without boxes, 0 rather than -1
    negative = ~matched.positive & (overlap < config.negative_iou)
    index, real = balanced_sample(matched.positive, negative, config.samples, config.positive_share)
    sampled = torch.zeros_like(negative).scatter(1, index, real)
    return RPNTargets(matched.positive, sampled, matched.codes)


@torch.no_grad()
def propose(
    output: RPNOutput,
    anchors: Tensor,
    valid: Tensor,
    config: RPNConfig,
    flavor: Flavor,
    *,
    candidates: int,
) -> Proposals:
    """Proposals from the head's `output` over `anchors` (A, 4), clipped to `valid` (B, 2).

    `candidates` boxes per level enter the suppression.
    """
    split = output.anchors_per_level
    boxes, scores = [], []
    levels = zip(
        output.logits.float().split(split, 1),
        output.codes.float().split(split, 1),
        anchors.split(split),
        strict=True,
    )
    for logits, codes, places in levels:
        best, index = logits.topk(min(candidates, logits.shape[1]))
        scores.append(best)
        boxes.append(clip(decode_pixels(take(codes, index), places[index], flavor), valid, flavor))
    # One group per picture and level.
    groups = [torch.full_like(best, level, dtype=torch.long) for level, best in enumerate(scores)]
    first = torch.arange(len(valid), device=anchors.device)[:, None] * len(split)
    all_boxes = torch.cat(boxes, 1)
    index, real = best_after_nms(
        all_boxes,
        torch.cat(scores, 1),
        torch.cat(groups, 1) + first,
        iou=config.nms_iou,
        count=config.proposals,
    )
    return Proposals(take(all_boxes, index) * real[..., None], real)
