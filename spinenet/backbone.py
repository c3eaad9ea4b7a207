"""SpineNet and every other scale-permuted network: a genotype, made into modules and run (sections
3.1-3.3).

The stem is a 7x7 convolution of 64 filters, which no width multiplier touches, a max-pool and the
genotype's bottleneck chain; a mobile network has a 3x3 convolution of 8 filters, scaled, and no
pool. Then each node fuses its resampled parents, adds the orphans that it merges, activates, and
runs its block group. The output nodes pass a 1x1 convolution to the endpoint width and go to the
head as P3..P7 (tensorflow/tpu: modeling/architecture/spinenet.py and spinenet_mbconv.py).

Nodes from which no output can be reached are not built, as in the Model Garden.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from torch import Tensor, nn

from spinenet.blocks import block_group
from spinenet.config import MOBILE_STEM_FILTERS, STEM_FILTERS, LayerConfig, SpineNetConfig
from spinenet.fusion import fusion
from spinenet.genotype import EXPANSION, BlockSpec
from spinenet.layers import ConvNormAct, init_backbone, max_pool_same
from spinenet.resample import MobileResample, Resample


class SpineNet(nn.Module):
    """A scale-permuted backbone.

    forward: (B, 3, H, W) → {level: (B, endpoint_filters, ceil(H / 2**level), ceil(W / 2**level))}
    for each output.
    """

    def __init__(self, config: SpineNetConfig, layers: LayerConfig) -> None:
        super().__init__()
        self.genotype, self.flavor = config.genotype, layers.flavor
        self.nodes, self.merged = config.genotype.nodes, config.genotype.merged()
        self.outputs = config.genotype.outputs
        self.live = self.genotype.built(self.outputs.values())
        self.channels = dict.fromkeys(config.genotype.outputs, config.endpoint_filters)

        self.stem = _stem(config, layers)
        self.act = layers.act()
        self.blocks, self.resample, self.fuse, self.endpoints = (
            nn.ModuleDict(),
            nn.ModuleDict(),
            nn.ModuleDict(),
            nn.ModuleDict(),
        )
        for index in self.live:
            add = self._add_stem_node if index < len(self.genotype.stem) else self._add_node
            add(index, config, layers)
        for level, index in config.genotype.outputs.items():
            channels = _channels(self.nodes[index], config)
            self.endpoints[str(level)] = layers.conv_norm_act(channels, config.endpoint_filters, 1)
        init_backbone(self)

    def _add_stem_node(self, index: int, config: SpineNetConfig, layers: LayerConfig) -> None:
        node, before = self.nodes[index], self.nodes[index - 1] if index else None
        halves = before is not None and before.level < node.level
        self.blocks[str(index)] = block_group(
            layers,
            node.kind,
            inputs=_stem_filters(config) if before is None else _channels(before, config),
            width=_inner(node, config),
            repeats=config.block_repeats,
            stride=2 if halves else 1,
            project=before is None or halves,
        )

    def _add_node(self, index: int, config: SpineNetConfig, layers: LayerConfig) -> None:
        node, channels = self.nodes[index], _channels(self.nodes[index], config)
        self.resample[str(index)] = nn.ModuleList(
            _edge(self.nodes[parent], node, config, layers) for parent in node.parents
        )
        self.fuse[str(index)] = fusion(
            config.fusion, layers, channels=channels, inputs=len(node.parents)
        )
        # What the parents are fused to has the block's own output channels: nothing to project.
        self.blocks[str(index)] = block_group(
            layers,
            node.kind,
            inputs=channels,
            width=_inner(node, config),
            repeats=config.block_repeats,
            drop_rate=_drop_rate(index, config, layers),
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        height, width = images.shape[-2:]
        features: dict[int, Tensor] = {}
        x = self.stem(images)
        for index in self.live:
            node = self.nodes[index]
            if index < len(self.genotype.stem):
                x = self.blocks[str(index)](features[index - 1] if index else x)
                features[index] = x
                continue
            size = (-(-height // 2**node.level), -(-width // 2**node.level))
            x = self._gather(index, node, features, size)
            features[index] = self.blocks[str(index)](self.act(x))
        return {level: self.endpoints[str(level)](features[i]) for level, i in self.outputs.items()}

    def keep(self, levels: Collection[int]) -> None:
        """Give up the endpoints at other levels, and the nodes that only they depend on.

        Raises ValueError for a level that is none of the outputs', or for no level at all.
        """
        if not levels or not set(levels) <= self.outputs.keys():
            known = ", ".join(map(str, self.outputs))
            raise ValueError(f"levels {list(levels)} must be some of this network's: {known}")
        self.outputs = {level: i for level, i in self.outputs.items() if level in levels}
        self.channels = {level: c for level, c in self.channels.items() if level in levels}
        self.live = self.genotype.built(self.outputs.values())
        for by_node in (self.blocks, self.resample, self.fuse):
            for key in by_node.keys() - set(map(str, self.live)):
                del by_node[key]
        for key in self.endpoints.keys() - set(map(str, self.outputs)):
            del self.endpoints[key]

    def _gather(
        self, index: int, node: BlockSpec, features: dict[int, Tensor], size: tuple[int, int]
    ) -> Tensor:
        edges = cast(nn.ModuleList, self.resample[str(index)])
        x = self.fuse[str(index)](
            [edge(features[p], size) for edge, p in zip(edges, node.parents, strict=True)]
        )
        for orphan in self.merged.get(index, ()):
            x = x + features[orphan]
        return x


def _stem(config: SpineNetConfig, layers: LayerConfig) -> nn.Module:
    """(B, 3, H, W) → (B, stem filters, ceil(H / 4), ceil(W / 4)), or halves in a mobile network."""
    if config.genotype.is_mobile:
        return layers.conv_norm_act(3, _stem_filters(config), 3, stride=2)
    return Stem(layers.conv(3, STEM_FILTERS, 7, stride=2), layers.norm(STEM_FILTERS), layers.act())


class Stem(ConvNormAct):
    """7x7 convolution, norm, activation, 3x3 max-pool: (B, 3, H, W) → (B, 64, ceil(H / 4),
    ceil(W / 4)).
    """

    def forward(self, x: Tensor) -> Tensor:
        return max_pool_same(super().forward(x), 3, 2)


def _stem_filters(config: SpineNetConfig) -> int:
    if config.genotype.is_mobile:
        return int(MOBILE_STEM_FILTERS * config.width)
    return STEM_FILTERS


def _drop_rate(index: int, config: SpineNetConfig, layers: LayerConfig) -> float:
    """Stochastic depth of a permuted block, rising linearly with its place in the list."""
    listed = len(config.genotype.blocks)
    if not config.genotype.is_mobile and layers.flavor == "tf2":
        listed += 1  # the Model Garden's list has another block, at level 2
    return layers.stochastic_depth * (index - len(config.genotype.stem) + 1) / listed


def _inner(node: BlockSpec, config: SpineNetConfig) -> int:
    return int(config.genotype.widths[node.level] * config.width)


def _channels(node: BlockSpec, config: SpineNetConfig) -> int:
    return EXPANSION[node.kind] * _inner(node, config)


def _edge(
    parent: BlockSpec, node: BlockSpec, config: SpineNetConfig, layers: LayerConfig
) -> Resample | MobileResample:
    if config.genotype.is_mobile:
        return MobileResample(
            layers,
            inputs=_channels(parent, config),
            outputs=_channels(node, config),
            halvings=node.level - parent.level,
        )
    return Resample(
        layers,
        inputs=_channels(parent, config),
        squeezed=int(_inner(parent, config) * config.resample_alpha),
        outputs=_channels(node, config),
        halvings=node.level - parent.level,
    )
