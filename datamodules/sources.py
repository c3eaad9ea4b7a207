"""Where a detection data set comes from: a folder in COCO's format, or the embedded digits.

A source knows its identity (``fingerprint``) and gives one index per split. The configs carry a
literal ``kind``, so that a caller can build a discriminated union over them.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from datamodules.coco import CocoIndex, fingerprint, read_coco
from datamodules.damage import OnError
from datamodules.digits import DigitsConfig, Progress, digits_fingerprint, prepare
from datamodules.digits_scene import SPLITS
from datamodules.errors import DataError
from datamodules.layouts import find_split


@dataclass(frozen=True)
class CocoFolderConfig:
    """The user's own data, or COCO itself."""

    kind: Literal["coco"] = "coco"
    root: str = ""
    """Folder with annotations and pictures; ``layouts`` has the ways they may lie in it."""


SourceConfig = CocoFolderConfig | DigitsConfig


class Source(Protocol):
    """A data set with the splits "train" and "val"."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 hex of labels, of masks where they are read, and of pictures' names and sizes."""

    def prepare(self) -> None:
        """Make the files exist. Called once per machine."""

    def index(self, split: str) -> CocoIndex:
        """What is annotated in ``split``."""


def open_source(
    config: SourceConfig,
    on_progress: Progress | None = None,
    on_error: OnError = "raise",
    *,
    masks: bool = False,
) -> Source:
    """The source a config describes. ``on_progress`` watches drawing, where there is any;
    ``on_error`` says what becomes of damaged pictures; ``masks`` reads the segmentations too.
    """
    if isinstance(config, DigitsConfig):
        return DigitsSource(config, on_progress, masks=masks)
    return CocoFolderSource(config, on_error, masks=masks)


class CocoFolderSource:
    """A folder in COCO's format; each split is read once."""

    def __init__(
        self, config: CocoFolderConfig, on_error: OnError = "raise", *, masks: bool = False
    ) -> None:
        if not config.root:
            raise DataError("root is empty; set the data's root to a folder in COCO format")
        self.root = Path(config.root).expanduser()
        self.on_error = on_error
        self.masks = masks
        self._indices: dict[str, CocoIndex] = {}

    @cached_property
    def fingerprint(self) -> str:
        parts = [fingerprint(self.index(split)) for split in SPLITS]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def prepare(self) -> None:
        """Nothing: the files are the user's. What is wrong with them shows when they are read."""

    def index(self, split: str) -> CocoIndex:
        if split not in self._indices:
            files = find_split(self.root, split)
            self._indices[split] = read_coco(*files, masks=self.masks, on_error=self.on_error)
        return self._indices[split]


class DigitsSource:
    """The embedded digits, drawn into the cache folder when they are missing there."""

    def __init__(
        self, config: DigitsConfig, on_progress: Progress | None = None, *, masks: bool = False
    ) -> None:
        self.config = config
        self.on_progress = on_progress
        self.masks = masks
        self._indices: dict[str, CocoIndex] = {}

    @property
    def fingerprint(self) -> str:
        return digits_fingerprint(self.config)

    def prepare(self) -> None:
        prepare(self.config, on_progress=self.on_progress)

    def index(self, split: str) -> CocoIndex:
        if split not in self._indices:
            folder = prepare(self.config, on_progress=self.on_progress)
            self._indices[split] = read_coco(*find_split(folder, split), masks=self.masks)
        return self._indices[split]
