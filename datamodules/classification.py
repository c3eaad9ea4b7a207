"""Classification data for training and validation: the dataset and the Lightning datamodule.

The dataset is stateless: asked for (epoch, i), it answers the same on any worker, in any order, in
any process. The default collation makes the batch:

    image     float32 [3, S, S]   normalised
    label     int                 class number 0..K-1, plus ``label_offset``
    image_id  int                 i, the sample's place in the index
"""

from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from datamodules.class_sources import ClassSourceConfig, open_class_source
from datamodules.crops import centre_crop, crop_image, draw_crop
from datamodules.damage import OnError
from datamodules.errors import DataError
from datamodules.inputs import CropConfig
from datamodules.labels import (
    ClassIndex,
    LabelledPicture,
    labels_fingerprint,
    without_unreadable,
)
from datamodules.loading import CALLED, PictureDataset, TwoSplits
from datamodules.pictures import DAMAGED, decode
from datamodules.sampling import Key, augmentation_stream

CACHE_LIMIT_BYTES = 512 * 2**20  # of decoded pictures per split


class ClassificationDataset(PictureDataset):
    """Samples by (epoch, i): random crops in training, the central square otherwise."""

    def __init__(
        self,
        *,
        index: ClassIndex,
        crop: CropConfig,
        train: bool,
        seed: int,
        label_offset: int = 0,
        cache: bool = False,
    ) -> None:
        super().__init__(train=train, cache=cache)
        self.index = index
        self.crop = crop
        self.seed = seed
        self.label_offset = label_offset

    def __len__(self) -> int:
        return len(self.index.pictures)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        _, i = key
        image = self.picture(i)
        size = image.shape[1], image.shape[2]
        if self.train:
            rng = augmentation_stream(self.seed, key)
            crop = draw_crop(size, self.crop, rng)
        else:
            crop = centre_crop(size, self.crop.centre)
        return {
            "image": crop_image(image, crop, self.crop.side),
            "label": self.index.pictures[i].class_number + self.label_offset,
            "image_id": i,
        }

    def read(self, i: int) -> Tensor:
        return read_labelled(self.index, self.index.pictures[i])


class ClassificationDataModule(TwoSplits):
    """Train and validation loaders over one source; batch sizes are per device.

    ``label_offset`` is added to every label and to the number of classes: 1 keeps class 0 for a
    background that no picture has, as the official ImageNet labels do. It shards by itself: give
    the Trainer ``use_distributed_sampler=False``.
    ``on_error`` "skip" leaves out damaged pictures, for which every picture is decoded before
    training.
    """

    def __init__(
        self,
        *,
        source: ClassSourceConfig,
        crop: CropConfig,
        seed: int,
        batch_size: int,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        label_offset: int = 0,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(
            seed=seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
        )
        self.source = open_class_source(source, on_error=on_error)
        self.crop = crop
        self.label_offset = label_offset
        self.on_error = on_error
        self._train: ClassificationDataset | None = None
        self._val: ClassificationDataset | None = None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Read and check the labels, decode what fits the cache; ``validate`` needs no train."""
        if self._val is None:
            self._val = self._dataset("val")
        if self._train is None and stage != "validate":
            self._train = self._dataset("train")

    def _dataset(self, split: str) -> ClassificationDataset:
        index = self.source.index(split)
        if self.on_error == "skip":
            index = without_unreadable(index, partial(read_labelled, index))
        if not index.pictures:
            raise DataError(f"{index.origin}: every picture is damaged: {index.left_out[0]}")
        dataset = ClassificationDataset(
            index=index,
            crop=self.crop,
            train=split == "train",
            seed=self.seed,
            label_offset=self.label_offset,
            cache=fits_cache(index),
        )
        dataset.preload()  # a damaged picture shows now, not after an hour of training
        return dataset

    @property
    def train_index(self) -> ClassIndex:
        return _ready(self._train).index

    @property
    def val_index(self) -> ClassIndex:
        return _ready(self._val).index

    @property
    def num_classes(self) -> int:
        """Outputs that the network needs: the classes and ``label_offset``."""
        return len(self.val_index.class_names) + self.label_offset

    @property
    def class_names(self) -> dict[int, str]:
        """Names by label."""
        return dict(enumerate(self.val_index.class_names, start=self.label_offset))

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def val_fingerprint(self) -> str:
        """Of the validation split alone, as far as it is read."""
        return labels_fingerprint([self.val_index])

    @property
    def train_set(self) -> ClassificationDataset:
        return _ready(self._train)

    @property
    def val_set(self) -> ClassificationDataset:
        return _ready(self._val)

    def described(self, split: str) -> str:
        index = self.train_index if split == "train" else self.val_index
        return f"{index.origin}: {len(index.pictures)} {CALLED[split]} samples"

    @property
    def left_out(self) -> dict[str, tuple[str, ...]]:
        return {"train": self.train_index.left_out, "val": self.val_index.left_out}


def read_labelled(index: ClassIndex, picture: LabelledPicture) -> Tensor:
    """uint8 [3, height, width]: the picture, or its region."""
    path, entry = index.path(picture), _entry(index, picture)
    pixels = decode(path, entry, "remove it from the labels")
    if picture.region is not None:
        left, top, right, bottom = picture.region
        height, width = pixels.shape[:2]
        if right > width or bottom > height:
            raise DataError(
                f"{path} ({entry}) is {width} x {height} pixels, smaller than annotated: a sample "
                f"ends at ({right}, {bottom}); put back the picture that was annotated"
            )
        pixels = pixels[top:bottom, left:right]
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def fits_cache(index: ClassIndex) -> bool:
    """Whether the decoded samples stay below ``CACHE_LIMIT_BYTES``.

    Large sets are told by their files' sizes, and small ones by reading every picture's header.
    """
    if sum(picture.size_bytes for picture in index.pictures) > CACHE_LIMIT_BYTES:
        return False
    total = 0
    for picture in index.pictures:
        left, top, right, bottom = picture.region or (0, 0, *_stored_size(index, picture))
        total += 3 * (right - left) * (bottom - top)
    return total <= CACHE_LIMIT_BYTES


def _stored_size(index: ClassIndex, picture: LabelledPicture) -> tuple[int, int]:
    """Width and height from the file's header; nothing of a damaged one, which decoding refuses."""
    try:
        with Image.open(index.path(picture)) as image:
            return image.size
    except DAMAGED:
        return 0, 0


def _entry(index: ClassIndex, picture: LabelledPicture) -> str:
    return f"class {index.class_names[picture.class_number]!r} in {index.origin}"


def _ready(dataset: ClassificationDataset | None) -> ClassificationDataset:
    if dataset is None:
        raise RuntimeError("call prepare_data() and setup() before using the datamodule")
    return dataset
