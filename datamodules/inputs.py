"""How a picture becomes a network's input, as data: ``transforms`` does it for detection, ``crops``
for classification. Without torch, since a recipe is read and named more often than it is run.
"""

from dataclasses import dataclass
from typing import Literal

from datamodules.errors import DataError


@dataclass(frozen=True)
class TransformConfig:
    """How a picture becomes a detector's input."""

    kind: Literal["pad"] = "pad"
    side: int = 640
    """Height and width of the network input, in pixels."""
    flip: bool = True
    """Mirror half of the training pictures left to right."""
    scale_jitter: tuple[float, float] = (0.8, 1.2)
    """Training pictures are resized to fit ``s * side``, s uniform in this range."""

    def __post_init__(self) -> None:
        if self.side < 1:
            raise DataError(f"side is {self.side}; give the network input's pixels, e.g. 640")
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise DataError(
                f"scale_jitter is ({low}, {high}); give 0 < low <= high, e.g. (0.8, 1.2)"
            )


@dataclass(frozen=True)
class CropConfig:
    """How a picture becomes a classifier's input."""

    kind: Literal["crop"] = "crop"
    side: int = 224
    """Height and width of the network input, in pixels."""
    flip: bool = True
    """Mirror half of the training pictures left to right."""
    area: tuple[float, float] = (0.08, 1.0)
    """Training crops have a share of the picture's area in this range."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Training crops have a width over height in this range."""
    centre: float = 0.875
    """Evaluation takes a central square of this share of the shorter side."""

    def __post_init__(self) -> None:
        if self.side < 1:
            raise DataError(f"side is {self.side}; give the network input's pixels, e.g. 224")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise DataError(f"area is {self.area}; give 0 < low <= high <= 1, e.g. (0.08, 1.0)")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise DataError(f"aspect is {self.aspect}; give 0 < low <= high, e.g. (0.75, 1.33)")
        if not 0 < self.centre <= 1:
            raise DataError(f"centre is {self.centre}; give a share in (0, 1], e.g. 0.875")
