"""Data for the experiments: COCO folders and the embedded digits, as Lightning datamodules.

Depends on nothing else of this project. Start at ``DetectionDataModule``.
"""

from datamodules.coco import CocoIndex, ImageRecord, find_split, fingerprint, read_coco
from datamodules.detection import DetectionDataModule, DetectionDataset
from datamodules.digits import DigitsConfig
from datamodules.errors import DataError
from datamodules.sampling import EpochSampler
from datamodules.sources import CocoFolderConfig, Source, SourceConfig, open_source
from datamodules.transforms import TransformConfig

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
