"""A fixed number of boxes out of many, for a whole batch at once: random samples, and the best that
non-maximum suppression leaves.

Both answer with indices of fixed shape and say which of them are real, so that nothing after them
depends on how many boxes a picture happens to have.

Shapes: B images, N candidates, K chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of `values` (B, N) or (B, N, D) at `index` (B, K): (B, K) or (B, K, D)."""
    if values.dim() == 3:
        return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
    return values.gather(1, index)


@torch.no_grad()
def balanced_sample(
    positive: Tensor, negative: Tensor, count: int, share: float
) -> tuple[Tensor, Tensor]:
    """At most `count` random candidates of each picture, at most `share` of them positive.

    `positive` and `negative` are (B, N) bool. Missing positives are made up for by negatives, not
    the other way round (Model Garden: ops/sampling_ops.py). Returns indices (B, K), positives
    first, and which of them are real (B, K), with K = min(count, N). The draw uses torch's global
    generator of the tensors' device.
    """
    candidates = positive.shape[1]
    key = torch.rand(positive.shape, device=positive.device)
    drawn = torch.where(positive, key, -1.0).topk(min(int(count * share), candidates)).indices
    drawn_positive = torch.zeros_like(positive).scatter(1, drawn, True) & positive
    rank = torch.where(drawn_positive, 1 + key, torch.where(negative, key, -1.0))
    best, index = rank.topk(min(count, candidates))
    return index, best >= 0


@torch.no_grad()
def best_after_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, iou: float, count: int
) -> tuple[Tensor, Tensor]:
    """The `count` best of each picture after non-maximum suppression within each group.

    `boxes` (B, N, 4), `scores` (B, N), -inf for what is no candidate, `groups` (B, N), numbered
    over the whole batch. Returns indices (B, count), best first, and which of them are real.
    """
    if scores.is_meta:  # counting: which boxes survive does not matter, their number does
        kept = torch.ones_like(scores, dtype=torch.bool)
    else:
        from torchvision.ops import batched_nms  # slow to import, and counting does not get here

        candidate = scores.flatten().isfinite().nonzero().squeeze(1)
        # Groups are shifted apart by torchvision; float64 keeps the boxes' precision there.
        kept_candidates = batched_nms(
            boxes.flatten(0, 1)[candidate].double(),
            scores.flatten()[candidate].double(),
            groups.flatten()[candidate],
            iou,
        )
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept.view(-1)[candidate[kept_candidates]] = True
    best, index = scores.masked_fill(~kept, -torch.inf).topk(min(count, scores.shape[1]))
    missing = count - index.shape[1]
    return F.pad(index, (0, missing)), F.pad(best.isfinite(), (0, missing))
