"""SpineNet and every other scale-permuted network: a genotype, made into modules and run (sections
3.1-3.3).

The stem is a 7x7 convolution of 64 filters, which no width multiplier touches, a max-pool and the
genotype's bottleneck chain. Then each node sums its resampled parents, adds the orphans that it
merges, activates, and runs its block group. The output nodes pass a 1x1 convolution to the endpoint
width and go to the head as P3..P7 (tensorflow/tpu: modeling/architecture/spinenet.py).

Nodes from which no output can be reached are not built, as in the Model Garden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

from torch import Tensor, nn

from spinenet import genotype as genotypes
from spinenet.blocks import block_group
from spinenet.genotype import EXPANSION, BlockSpec, Genotype
from spinenet.layers import LayerConfig, init_backbone, max_pool_same
from spinenet.resample import Resample

STEM_FILTERS = 64


@dataclass(frozen=True)
class SpineNetConfig:
    """A scale-permuted backbone: its genotype and how it is scaled (section 3.4).

    `width` multiplies every inner width, `block_repeats` is the number of blocks per node,
    `resample_alpha` scales the inner width inside resampling, `endpoint_filters` is the channel
    count of P3..P7.
    """

    kind: Literal["spinenet"] = "spinenet"
    genotype: Genotype = field(default_factory=lambda: genotypes.load("spinenet-49"))
    width: float = 1.0
    block_repeats: int = 1
    resample_alpha: float = 0.5
    endpoint_filters: int = 256

    def __post_init__(self) -> None:
        if self.block_repeats < 1:
            raise ValueError(f"block_repeats {self.block_repeats} must be at least 1")
        narrowest = min(self.genotype.widths.values()) * self.width
        if int(narrowest) < 1 or int(narrowest * self.resample_alpha) < 1:
            raise ValueError(
                f"width {self.width} with resample_alpha {self.resample_alpha} leaves a layer "
                "without channels; raise one of them"
            )


class SpineNet(nn.Module):
    """A scale-permuted backbone.

    forward: (B, 3, H, W) → {level: (B, endpoint_filters, ceil(H / 2**level), ceil(W / 2**level))}
    for each output.
    """

    def __init__(self, config: SpineNetConfig, layers: LayerConfig) -> None:
        super().__init__()
        self.genotype = config.genotype
        self.nodes, self.merged = config.genotype.nodes, config.genotype.merged()
        self.live = _reach_an_output(self.nodes, self.merged)
        self.channels = dict.fromkeys(config.genotype.outputs, config.endpoint_filters)

        self.stem = layers.conv_norm_act(3, STEM_FILTERS, 7, stride=2)
        self.act = layers.act()
        self.blocks, self.resample, self.endpoints = (
            nn.ModuleDict(),
            nn.ModuleDict(),
            nn.ModuleDict(),
        )
        for index in self.live:
            self._add_node(index, config, layers)
        for level, index in config.genotype.outputs.items():
            channels = _channels(self.nodes[index], config)
            self.endpoints[str(level)] = layers.conv_norm_act(channels, config.endpoint_filters, 1)
        init_backbone(self)

    def _add_node(self, index: int, config: SpineNetConfig, layers: LayerConfig) -> None:
        node, in_stem = self.nodes[index], index < len(self.genotype.stem)
        width = _inner(node, config)
        if in_stem:
            before = self.nodes[index - 1] if index else None
            inputs = STEM_FILTERS if before is None else _channels(before, config)
            stride = 2 if before is not None and before.level < node.level else 1
            project = before is None or before.level < node.level
        else:
            # The sum of the parents already has the block's own output channels: nothing to
            # project.
            inputs, stride, project = _channels(node, config), 1, False
            self.resample[str(index)] = nn.ModuleList(
                _edge(self.nodes[parent], node, config, layers) for parent in node.parents
            )
        self.blocks[str(index)] = block_group(
            layers,
            node.kind,
            inputs=inputs,
            width=width,
            repeats=config.block_repeats,
            stride=stride,
            project=project,
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        height, width = images.shape[-2:]
        features: dict[int, Tensor] = {}
        x = max_pool_same(self.stem(images), 3, 2)
        for index in self.live:
            node = self.nodes[index]
            if index < len(self.genotype.stem):
                x = self.blocks[str(index)](features[index - 1] if index else x)
                features[index] = x
                continue
            size = (-(-height // 2**node.level), -(-width // 2**node.level))
            x = self._fuse(index, node, features, size)
            features[index] = self.blocks[str(index)](self.act(x))
        return {
            level: self.endpoints[str(level)](features[i])
            for level, i in self.genotype.outputs.items()
        }

    def _fuse(
        self, index: int, node: BlockSpec, features: dict[int, Tensor], size: tuple[int, int]
    ) -> Tensor:
        edges = cast(nn.ModuleList, self.resample[str(index)])
        resampled = [edge(features[p], size) for edge, p in zip(edges, node.parents, strict=True)]
        x = sum(resampled[1:], resampled[0])
        for orphan in self.merged.get(index, ()):
            x = x + features[orphan]
        return x


def _inner(node: BlockSpec, config: SpineNetConfig) -> int:
    return int(config.genotype.widths[node.level] * config.width)


def _channels(node: BlockSpec, config: SpineNetConfig) -> int:
    return EXPANSION[node.kind] * _inner(node, config)


def _edge(
    parent: BlockSpec, node: BlockSpec, config: SpineNetConfig, layers: LayerConfig
) -> Resample:
    return Resample(
        layers,
        inputs=_channels(parent, config),
        squeezed=int(_inner(parent, config) * config.resample_alpha),
        outputs=_channels(node, config),
        halvings=node.level - parent.level,
    )


def _reach_an_output(nodes: tuple[BlockSpec, ...], merged: dict[int, tuple[int, ...]]) -> list[int]:
    """Indices, in order, of the nodes that some output depends on."""
    needed = {i for i, node in enumerate(nodes) if node.is_output}
    for index in reversed(range(len(nodes))):
        if index in needed:
            needed.update(nodes[index].parents, merged.get(index, ()))
    return sorted(needed)
