"""Any data set, whatever it is for: detection or classification."""

from datamodules.class_sources import ClassSource, ClassSourceConfig, open_class_source
from datamodules.digits import DigitsConfig, Progress
from datamodules.digits_classes import DigitsClassesConfig
from datamodules.sources import CocoFolderConfig, Source, SourceConfig, open_source

DataSourceConfig = SourceConfig | ClassSourceConfig


def open_data(
    config: DataSourceConfig, on_progress: Progress | None = None
) -> Source | ClassSource:
    """The source a config describes. ``on_progress`` watches drawing, where there is any."""
    if isinstance(config, CocoFolderConfig | DigitsConfig):
        return open_source(config, on_progress)
    return open_class_source(config, on_progress)


def training_samples(config: DataSourceConfig) -> int:
    """Samples that an epoch has, before batches are made of them."""
    if isinstance(config, DigitsConfig | DigitsClassesConfig):  # need not be drawn to be counted
        return config.train_images
    index = open_data(config).index("train")
    return len(index.images if hasattr(index, "images") else index.pictures)
