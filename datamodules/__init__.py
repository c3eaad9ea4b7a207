"""Data for the experiments as Lightning datamodules: for detection COCO folders and the embedded
digits, for classification folders of classes, a CSV, iNaturalist and the digits again.

Depends on nothing else of this project. Start at ``DetectionDataModule`` and
``ClassificationDataModule``. What trains is imported when it is first asked for: torch and
Lightning take seconds that tables and plans need not wait for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datamodules.class_sources import ClassSource, ClassSourceConfig
from datamodules.coco import CocoIndex, ImageRecord, fingerprint, read_coco
from datamodules.damage import OnError
from datamodules.digits import DigitsConfig
from datamodules.digits_classes import DigitsClassesConfig
from datamodules.errors import DataError
from datamodules.image_folder import ImageFolderConfig
from datamodules.inaturalist import INaturalistBoxesConfig, INaturalistConfig
from datamodules.inputs import CropConfig, TransformConfig
from datamodules.labels import ClassIndex
from datamodules.labels_csv import LabelsCsvConfig
from datamodules.layouts import find_split
from datamodules.opening import DataSourceConfig, open_data, training_samples
from datamodules.sources import CocoFolderConfig, Source, SourceConfig, open_source

if TYPE_CHECKING:
    from datamodules.classification import ClassificationDataModule
    from datamodules.detection import DetectionDataModule, DetectionDataset
    from datamodules.sampling import EpochSampler

__all__ = [
    "ClassIndex",
    "ClassSource",
    "ClassSourceConfig",
    "ClassificationDataModule",
    "CocoFolderConfig",
    "CocoIndex",
    "CropConfig",
    "DataError",
    "DataSourceConfig",
    "DetectionDataModule",
    "DetectionDataset",
    "DigitsClassesConfig",
    "DigitsConfig",
    "EpochSampler",
    "INaturalistBoxesConfig",
    "INaturalistConfig",
    "ImageFolderConfig",
    "ImageRecord",
    "LabelsCsvConfig",
    "OnError",
    "Source",
    "SourceConfig",
    "TransformConfig",
    "find_split",
    "fingerprint",
    "open_data",
    "open_source",
    "read_coco",
    "training_samples",
]


_TRAINING = {
    "ClassificationDataModule": "classification",
    "DetectionDataModule": "detection",
    "DetectionDataset": "detection",
    "EpochSampler": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_TRAINING[name]}"), name)
