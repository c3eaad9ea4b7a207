"""Cross-scale resampling: a parent's features brought to the level and width of the block that
reads them.

Section 3.2 and figure 5: 1x1 to alpha * C, change of size, 1x1 to the reader's input width.
Shrinking is one 3x3 stride-2 convolution and max-pooling for the rest; growing is nearest
neighbour. Every edge has weights of its own, and both 1x1 convolutions are there even where shapes
agree (tensorflow/tpu: spinenet.py, resample_with_alpha). Mobile networks halve by depthwise
convolutions and have no first 1x1 (spinenet_mbconv.py, resample_with_sepconv).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from spinenet.config import LayerConfig
from spinenet.layers import max_pool_same


class Resample(nn.Module):
    """One edge: (B, inputs, H_parent, W_parent) → (B, outputs, *size), without a final activation.

    `squeezed` is alpha times the parent's inner width. `halvings` is the reader's level minus the
    parent's: the 3x3 convolution exists only where it is positive.
    """

    def __init__(
        self, layers: LayerConfig, *, inputs: int, squeezed: int, outputs: int, halvings: int
    ) -> None:
        super().__init__()
        self.flavor, self.halvings = layers.flavor, halvings
        self.squeeze = layers.conv_norm_act(inputs, squeezed, 1)
        self.down = layers.conv_norm_act(squeezed, squeezed, 3, stride=2) if halvings > 0 else None
        self.expand = layers.conv_norm(squeezed, outputs, 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        width = x.shape[-1]
        x = self.squeeze(x)
        if self.down is not None:
            x = self._pool(self.down(x), width, size[1])
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="nearest")
        return self.expand(x)

    def _pool(self, x: Tensor, width: int, target: int) -> Tensor:
        """What is left of the shrinking after the strided convolution has halved a map `width`
        wide.
        """
        if self.flavor == "tf2":
            for _ in range(self.halvings - 1):
                x = max_pool_same(x, 3, 2)
        elif width // target > 2:
            divides = width % target == 0
            x = max_pool_same(
                x, 3 if width <= 4 * target else 5, width // target // 2 if divides else 2
            )
        return x


class MobileResample(nn.Module):
    """One edge of a mobile network: (B, inputs, H_parent, W_parent) → (B, outputs, *size).

    One depthwise 3x3 stride-2 convolution per halving, or nearest neighbour, then 1x1 without
    activation.
    """

    def __init__(self, layers: LayerConfig, *, inputs: int, outputs: int, halvings: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *(layers.depthwise_norm_act(inputs, 3, stride=2) for _ in range(halvings))
        )
        self.expand = layers.conv_norm(inputs, outputs, 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.down(x)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="nearest")
        return self.expand(x)
