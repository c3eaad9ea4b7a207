"""Where a classification data set comes from: a folder of classes, a CSV file, iNaturalist, or the
embedded digits.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from datamodules.damage import OnError
from datamodules.digits import Progress
from datamodules.digits_classes import (
    DigitsClassesConfig,
    digits_classes_fingerprint,
    prepare_digits_classes,
)
from datamodules.digits_scene import SPLITS
from datamodules.errors import DataError, MissingSplitError
from datamodules.image_folder import ImageFolderConfig, list_image_folder
from datamodules.inaturalist import (
    INaturalistBoxesConfig,
    INaturalistConfig,
    list_inaturalist,
    list_inaturalist_boxes,
)
from datamodules.labels import ClassIndex, Listing, class_index, labels_fingerprint
from datamodules.labels_csv import LabelsCsvConfig, list_labels_csv

UserSourceConfig = ImageFolderConfig | LabelsCsvConfig | INaturalistConfig | INaturalistBoxesConfig
ClassSourceConfig = UserSourceConfig | DigitsClassesConfig


class ClassSource:
    """Labelled pictures in the splits "train" and "val"; each is read once."""

    def __init__(self, read: Callable[[str], Listing], on_error: OnError = "raise") -> None:
        self._read = read
        self.on_error = on_error
        self._listings: dict[str, Listing] = {}
        self._indices: dict[str, ClassIndex] = {}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex of labels, and of pictures' names and sizes."""
        return labels_fingerprint(self.index(split) for split in SPLITS)

    def prepare(self) -> None:
        """Make the files exist. The user's are there, or what is wrong shows when they are read."""

    def index(self, split: str) -> ClassIndex:
        """The samples of ``split``; its classes are training's, or those of a validation split that
        is there by itself.
        """
        if split not in self._indices:
            listing = self._listing(split)
            self._indices[split] = class_index(listing, self._classes, self.on_error)
        return self._indices[split]

    @cached_property
    def _classes(self) -> Listing:
        try:
            return self._listing("train")
        except MissingSplitError:
            return self._listing("val")

    def _listing(self, split: str) -> Listing:
        if split not in self._listings:
            self._listings[split] = self._read(split)
        return self._listings[split]


class DigitsClassSource(ClassSource):
    """The embedded digits, drawn into the cache folder when they are missing there."""

    def __init__(self, config: DigitsClassesConfig, on_progress: Progress | None = None) -> None:
        super().__init__(lambda split: list_image_folder(self._folder(), split))
        self.config, self.on_progress = config, on_progress

    @cached_property
    def fingerprint(self) -> str:
        return digits_classes_fingerprint(self.config)

    def prepare(self) -> None:
        self._folder()

    def _folder(self) -> Path:
        return prepare_digits_classes(self.config, on_progress=self.on_progress)


def open_class_source(
    config: ClassSourceConfig,
    on_progress: Progress | None = None,
    on_error: OnError = "raise",
) -> ClassSource:
    """The source a config describes. ``on_progress`` watches drawing, where there is any;
    ``on_error`` says what becomes of damaged pictures.
    """
    if isinstance(config, DigitsClassesConfig):
        return DigitsClassSource(config, on_progress)
    if not config.root:
        raise DataError(f"{config.kind}: root is empty; set the data's root to a folder")
    return ClassSource(lambda split: _list(config, split, on_error), on_error)


def _list(config: UserSourceConfig, split: str, on_error: OnError) -> Listing:
    match config:
        case ImageFolderConfig():
            return list_image_folder(Path(config.root).expanduser(), split)
        case LabelsCsvConfig():
            return list_labels_csv(config, split)
        case INaturalistConfig():
            return list_inaturalist(config, split)
        case INaturalistBoxesConfig():
            return list_inaturalist_boxes(config, split, on_error)
