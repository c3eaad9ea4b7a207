"""Necks: what turns a ResNet's C3, C4, C5 into P3..P7.

FPN as in tensorflow/tpu: modeling/architecture/fpn.py. Laterals and post-hoc convolutions have
biases and no norm; P6 is a stride-2 convolution of P5, P7 one of relu(P6), both padded SAME in
either flavour; one norm without activation closes every level. NAS-FPN as in nasfpn.py: a found
cell, repeated. PAN (Liu et al., 2018) adds a bottom-up path to an FPN, and SPP (He et al., 2014)
pools C5 at several scales first; the paper has neither, they are here to be compared.

Every neck's forward: [C3, C4, C5], each (B, inputs[i], H_i, W_i) → {3: P3, …, 7: P7}, each
(B, filters, ceil(H / 2**level), ceil(W / 2**level)).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.config import Fusion, LayerConfig
from spinenet.fusion import fusion
from spinenet.layers import SameConv2d, max_pool_same

LEVELS = (3, 4, 5, 6, 7)


class FPN(nn.Module):
    """Feature pyramid: a top-down path, and two strided levels above."""

    def __init__(
        self, layers: LayerConfig, *, inputs: list[int], filters: int, fusing: Fusion = "add"
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(layers.conv(c, filters, 1, bias=True) for c in inputs)
        self.posthocs = nn.ModuleList(layers.conv(filters, filters, 3, bias=True) for _ in inputs)
        self.p6 = SameConv2d(filters, filters, 3, stride=2)
        self.p7 = SameConv2d(filters, filters, 3, stride=2)
        self.act = nn.ReLU() if layers.flavor == "tf1" else layers.act()
        self.norms = nn.ModuleList(layers.norm(filters) for _ in range(len(inputs) + 2))
        self.fuse = nn.ModuleList(
            fusion(fusing, layers, channels=filters, inputs=2) for _ in inputs[1:]
        )

    def forward(self, features: list[Tensor]) -> dict[int, Tensor]:
        merged = [lateral(c) for lateral, c in zip(self.laterals, features, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = self.fuse[i]([merged[i], _resize(merged[i + 1], merged[i])])
        pyramid = [posthoc(m) for posthoc, m in zip(self.posthocs, merged, strict=True)]
        pyramid.append(self.p6(pyramid[-1]))
        pyramid.append(self.p7(self.act(pyramid[-1].clone())))  # P6 itself stays as it is
        return {level: norm(p) for level, norm, p in zip(LEVELS, self.norms, pyramid, strict=True)}


class PAN(nn.Module):
    """An FPN and a bottom-up path over its levels: each takes what lies below it, halved."""

    def __init__(
        self, layers: LayerConfig, *, inputs: list[int], filters: int, fusing: Fusion = "add"
    ) -> None:
        super().__init__()
        self.fpn = FPN(layers, inputs=inputs, filters=filters, fusing=fusing)
        above = [str(level) for level in LEVELS[1:]]
        self.down = nn.ModuleDict(
            {level: layers.conv_norm_act(filters, filters, 3, stride=2) for level in above}
        )
        self.fuse = nn.ModuleDict(
            {level: fusion(fusing, layers, channels=filters, inputs=2) for level in above}
        )
        self.out = nn.ModuleDict({level: layers.conv_norm(filters, filters, 3) for level in above})

    def forward(self, features: list[Tensor]) -> dict[int, Tensor]:
        pyramid = self.fpn(features)
        for below, level in pairwise(LEVELS):
            at = str(level)
            fused = self.fuse[at]([pyramid[level], self.down[at](pyramid[below])])
            pyramid[level] = self.out[at](fused)
        return pyramid


class CellNode(NamedTuple):
    """A node of NAS-FPN's cell: its level, how it joins its two inputs, and whether it is one of
    the cell's five outputs.
    """

    level: int
    combine: Literal["sum", "attention"]
    inputs: tuple[int, int]
    is_output: bool = False


# tensorflow/tpu: nasfpn.py, NASFPN_BLOCK_SPECS. Nodes 0 to 4 are the levels 3 to 7 that come in.
NAS_FPN_CELL = (
    CellNode(4, "attention", (1, 3)),
    CellNode(4, "sum", (1, 5)),
    CellNode(3, "sum", (0, 6), True),
    CellNode(4, "sum", (6, 7), True),
    CellNode(5, "attention", (7, 8), True),
    CellNode(7, "attention", (6, 9), True),
    CellNode(6, "attention", (9, 10), True),
)


class NASFPN(nn.Module):
    """Five levels through `repeats` cells (Ghiasi et al., 2019)."""

    def __init__(
        self, layers: LayerConfig, *, inputs: list[int], filters: int, repeats: int = 7
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(layers.conv(c, filters, 1, bias=True), layers.norm(filters))
            for c in inputs
        )
        self.cells = nn.ModuleList(NASFPNCell(layers, filters=filters) for _ in range(repeats))

    def forward(self, features: list[Tensor]) -> dict[int, Tensor]:
        pyramid = [lateral(c) for lateral, c in zip(self.laterals, features, strict=True)]
        while len(pyramid) < len(LEVELS):
            pyramid.append(max_pool_same(pyramid[-1], 2, 2))
        for cell in self.cells:
            pyramid = cell(pyramid)
        return dict(zip(LEVELS, pyramid, strict=True))


class NASFPNCell(nn.Module):
    """One cell: five maps (B, C, H_l, W_l) of the levels 3 to 7 → five of the same shapes.

    After each node's inputs are joined: activation, 3x3 convolution with bias, norm, DropBlock. An
    inner node that nobody has read is added to the output of its level.
    """

    def __init__(self, layers: LayerConfig, *, filters: int) -> None:
        super().__init__()
        self.act, self.drop = layers.act(), layers.drop_cells()
        self.convs = nn.ModuleList(
            nn.Sequential(layers.conv(filters, filters, 3, bias=True), layers.norm(filters))
            for _ in NAS_FPN_CELL
        )

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        levels, nodes, read = list(LEVELS), list(pyramid), [False] * len(pyramid)
        shapes = dict(zip(LEVELS, pyramid, strict=True))
        for node, conv in zip(NAS_FPN_CELL, self.convs, strict=True):
            a, b = node.inputs
            read[a] = read[b] = True
            here = shapes[node.level]
            one, other = (_bring(nodes[i], levels[i], node.level, here) for i in (a, b))
            if node.combine == "sum":
                x = one + other
            else:  # the coarser input says how much of each channel of the finer one counts
                coarse, fine = (one, other) if levels[a] >= levels[b] else (other, one)
                x = coarse + fine * torch.sigmoid(coarse.amax(dim=(2, 3), keepdim=True))
            if node.is_output:
                for i in range(len(nodes)):
                    if not read[i] and levels[i] == node.level:
                        x, read[i] = x + nodes[i], True
            nodes.append(self.drop(conv(self.act(x))))
            levels.append(node.level)
            read.append(False)
        last = dict(zip(levels[-len(LEVELS) :], nodes[-len(LEVELS) :], strict=True))
        return [last[level] for level in LEVELS]


class SPP(nn.Module):
    """Spatial pyramid pooling: (B, C, H, W) → (B, C, H, W) that has seen windows of 5, 9, 13."""

    WINDOWS = (5, 9, 13)

    def __init__(self, layers: LayerConfig, *, channels: int) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.squeeze = layers.conv_norm_act(channels, half, 1)
        self.expand = layers.conv_norm_act((1 + len(self.WINDOWS)) * half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        pooled = [F.max_pool2d(x, k, stride=1, padding=k // 2) for k in self.WINDOWS]
        return self.expand(torch.cat([x, *pooled], dim=1))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def _bring(x: Tensor, level: int, target: int, like: Tensor) -> Tensor:
    """A map at another level: max-pooled over windows of the ratio, or nearest neighbour."""
    if level < target:
        ratio = 2 ** (target - level)
        x = max_pool_same(x, ratio, ratio)
    return x if x.shape[-2:] == like.shape[-2:] else _resize(x, like)
