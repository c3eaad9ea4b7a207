"""Data for the experiments: COCO folders and the embedded digits, as Lightning datamodules.

Depends on nothing else of this project. Start at ``DetectionDataModule``, which is imported when it
is first asked for: Lightning takes seconds that tables and plans need not wait for.
"""

from typing import TYPE_CHECKING, Any

from datamodules.coco import CocoIndex, ImageRecord, find_split, fingerprint, read_coco
from datamodules.digits import DigitsConfig
from datamodules.errors import DataError
from datamodules.sampling import EpochSampler
from datamodules.sources import CocoFolderConfig, Source, SourceConfig, open_source
from datamodules.transforms import TransformConfig

if TYPE_CHECKING:
    from datamodules.detection import DetectionDataModule, DetectionDataset

__all__ = [
    "CocoFolderConfig",
    "CocoIndex",
    "DataError",
    "DetectionDataModule",
    "DetectionDataset",
    "DigitsConfig",
    "EpochSampler",
    "ImageRecord",
    "Source",
    "SourceConfig",
    "TransformConfig",
    "find_split",
    "fingerprint",
    "open_source",
    "read_coco",
]


def __getattr__(name: str) -> Any:
    if name in ("DetectionDataModule", "DetectionDataset"):
        from datamodules import detection

        return getattr(detection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
