"""The second stage's heads: class and box of a region, mask of a detection.

Box head: `convs` 3x3 convolutions, one fully connected layer, then a score per class and four codes
per class. Mask head: `convs` 3x3 convolutions, a transposed one that doubles the side, one mask per
class. All but the predictors are followed by norm and activation, and have a bias besides
(tensorflow/tpu: modeling/architecture/heads.py, FastrcnnHead and MaskrcnnHead; Model Garden:
modeling/heads/instance_heads.py).

Shapes: N regions, K classes with the background.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from spinenet.config import LayerConfig
from spinenet.detection.config import BoxHeadConfig, MaskHeadConfig
from spinenet.layers import ConvNormAct


class BoxHead(nn.Module):
    """forward: (N, inputs, side, side) → logits (N, K), codes (N, K, 4)."""

    def __init__(
        self,
        config: BoxHeadConfig,
        layers: LayerConfig,
        *,
        inputs: int,
        side: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.convs, width = _tower(config.convs, config.filters, layers, inputs)
        self.fc = nn.Linear(width * side**2, config.fc)
        self.norm, self.act = layers.norm(config.fc), layers.act()
        self.classes = nn.Linear(config.fc, num_classes)
        self.boxes = nn.Linear(config.fc, 4 * num_classes)
        if layers.flavor == "tf1":
            nn.init.xavier_uniform_(self.fc.weight)
        else:
            nn.init.uniform_(self.fc.weight, -(config.fc**-0.5), config.fc**-0.5)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.boxes.weight, std=0.001)
        for layer in (self.fc, self.classes, self.boxes):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.fc(self.convs(x).flatten(1))
        x = self.act(self.norm(x[..., None, None])).flatten(1)
        return self.classes(x), self.boxes(x).unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """forward: (N, inputs, side, side), labels (N,) → the label's mask logits (N, 2 * side, 2 *
    side).
    """

    def __init__(
        self, config: MaskHeadConfig, layers: LayerConfig, *, inputs: int, num_classes: int
    ) -> None:
        super().__init__()
        self.convs, width = _tower(config.convs, config.filters, layers, inputs)
        self.up = nn.ConvTranspose2d(width, config.filters, 2, 2)
        self.norm, self.act = layers.norm(config.filters), layers.act()
        self.predict = layers.conv(config.filters, num_classes, 1, bias=True)
        for conv in (self.up, self.predict):
            _init(conv)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = self.act(self.norm(self.up(self.convs(x))))
        masks = self.predict(x)  # (N, K, 2 * side, 2 * side)
        index = labels[:, None, None, None].expand(-1, 1, *masks.shape[2:])
        return masks.gather(1, index).squeeze(1)


def _tower(convs: int, filters: int, layers: LayerConfig, inputs: int) -> tuple[nn.Sequential, int]:
    """`convs` 3x3 convolutions with norm and activation, and their output channels."""
    widths = [inputs] + [filters] * convs
    tower = [layers.conv(a, b, 3, bias=True) for a, b in pairwise(widths)]
    for conv in tower:
        _init(conv)
    blocks = (ConvNormAct(conv, layers.norm(filters), layers.act()) for conv in tower)
    return nn.Sequential(*blocks), widths[-1]


def _init(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Normal of variance 2 / fan-out, where a transposed convolution's fan-out counts its inputs,
    as in Keras; no bias.
    """
    height, width = cast(tuple[int, int], conv.kernel_size)
    outputs = conv.in_channels if isinstance(conv, nn.ConvTranspose2d) else conv.out_channels
    nn.init.normal_(conv.weight, std=(2 / (height * width * outputs)) ** 0.5)
    nn.init.zeros_(cast(Tensor, conv.bias))
