"""Any data set, whatever it is for: detection or classification."""

from datamodules.class_sources import ClassSource, ClassSourceConfig, open_class_source
from datamodules.damage import OnError
from datamodules.digits import DigitsConfig, Progress
from datamodules.digits_classes import DigitsClassesConfig
from datamodules.sources import CocoFolderConfig, Source, SourceConfig, open_source

DataSourceConfig = SourceConfig | ClassSourceConfig


def open_data(
    config: DataSourceConfig,
    on_progress: Progress | None = None,
    on_error: OnError = "raise",
    *,
    masks: bool = False,
) -> Source | ClassSource:
    """The source a config describes. ``on_progress`` watches drawing, where there is any;
    ``on_error`` says what becomes of damaged pictures; ``masks`` reads the segmentations of objects
    too.
    """
    if isinstance(config, CocoFolderConfig | DigitsConfig):
        return open_source(config, on_progress, on_error, masks=masks)
    return open_class_source(config, on_progress, on_error)


def training_samples(config: DataSourceConfig, on_error: OnError = "raise") -> int:
    """Samples that an epoch has, before batches are made of them."""
    if isinstance(config, DigitsConfig | DigitsClassesConfig):  # need not be drawn to be counted
        return config.train_images
    index = open_data(config, on_error=on_error).index("train")
    return len(index.images if hasattr(index, "images") else index.pictures)
