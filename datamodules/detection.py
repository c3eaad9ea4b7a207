"""Detection data for training and validation: the dataset and the Lightning datamodule.

The dataset is stateless: asked for (epoch, i), it answers the same on any worker, in any order, in
any process. Samples have fixed shapes, so the default collation makes the batch:

    image     [3, S, S]           0..255 for `transforms.normalise` on the device, zero-padded at
                                  the bottom and the right; uint8 in training, float32 otherwise
    boxes     float32 [M, 4]      (x1, y1, x2, y2) in pixels of the network input, zero rows after
    labels    int64 [M]           1..K, 0 in the empty rows
    image_id  int                 COCO's id; scoring finds crowds and unclipped boxes by it
    scale     float32 [2]         (y, x) network pixels per stored pixel
    size      int64 [2]           (height, width) as stored
    valid     int64 [2]           (height, width) of the network input that is picture
    masks     uint8 [M, C, C]     only when asked for: 0..255 on C x C cells over each box

The C cells of `masks` cut the box in `boxes`, so they show what the crop has left of an object.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from datamodules.coco import (
    CocoIndex,
    ImageRecord,
    fingerprint,
    refuse_unlike,
    refuse_unseen,
    without_unreadable,
)
from datamodules.damage import OnError
from datamodules.errors import DataError
from datamodules.inputs import TransformConfig
from datamodules.loading import CALLED, PictureDataset, TwoSplits
from datamodules.masks import decode
from datamodules.pictures import read_picture
from datamodules.sampling import Key, augmentation_stream
from datamodules.sources import CocoFolderSource, SourceConfig, open_source
from datamodules.transforms import (
    Placement,
    crop_mask,
    draw_placement,
    has_area,
    place,
    place_boxes,
    place_pixels,
)

MAX_INSTANCES = 100  # of the official parser; no picture trains on more
MASK_CELLS = 112  # C, the official parser's mask_crop_size
CACHE_LIMIT_BYTES = 512 * 2**20  # of decoded pictures per split


class DetectionDataset(PictureDataset):
    """Samples by (epoch, i). Crowds are no targets, and at most ``max_instances`` boxes are.

    ``masks`` adds them to the sample; the index must have been read with them.
    """

    def __init__(
        self,
        *,
        index: CocoIndex,
        transform: TransformConfig,
        train: bool,
        seed: int,
        max_instances: int,
        cache: bool = False,
        masks: bool = False,
    ) -> None:
        if masks and not index.has_masks:
            raise ValueError(
                f"the index of {index.annotation_file} has no masks; read it with masks=True"
            )
        super().__init__(train=train, cache=cache)
        self._pixel_type = torch.uint8 if train else torch.float32
        self.index = index
        self.transform = transform
        self.seed = seed
        self.max_instances = max_instances
        self.masks = masks

    def __len__(self) -> int:
        return len(self.index.images)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        _, i = key
        record = self.index.images[i]
        size = record.height, record.width
        if self.train:
            rng = augmentation_stream(self.seed, key)
            placement = draw_placement(size, self.transform, rng)
        else:
            placement = place(size, self.transform.side)
        boxes = place_boxes(torch.from_numpy(record.boxes), placement)
        kept = has_area(boxes) & ~torch.from_numpy(record.iscrowd)
        sample = {
            "image": place_pixels(self.picture(i).to(self._pixel_type), placement),
            "boxes": self._padded(boxes[kept]),
            "labels": self._padded(torch.from_numpy(record.labels)[kept]),
            "image_id": record.id,
            "scale": torch.tensor(placement.scale),
            "size": torch.tensor(size),
            "valid": torch.tensor(placement.valid),
        }
        if self.masks:
            sample["masks"] = self._cropped_masks(record, boxes, kept, placement)
        return sample

    def read(self, i: int) -> Tensor:
        return read_picture(self.index, self.index.images[i])

    def _cropped_masks(
        self, record: ImageRecord, boxes: Tensor, kept: Tensor, placement: Placement
    ) -> Tensor:
        """uint8 [M, C, C]. Masks are decoded one by one, as each fills a whole picture."""
        cropped = torch.zeros(self.max_instances, MASK_CELLS, MASK_CELLS, dtype=torch.uint8)
        masks = record.masks or ()
        for row, k in enumerate(kept.nonzero()[: self.max_instances, 0].tolist()):
            mask = torch.from_numpy(decode(masks[k], placement.size))
            cropped[row] = crop_mask(mask, boxes[k], placement, MASK_CELLS)
        return cropped

    def _padded(self, rows: Tensor) -> Tensor:
        rows = rows[: self.max_instances]
        padded = rows.new_zeros(self.max_instances, *rows.shape[1:])
        padded[: len(rows)] = rows
        return padded


class DetectionDataModule(TwoSplits):
    """Train and validation loaders over one source; batch sizes are per device. With ``masks``
    samples and indices have them, and an annotation without one is refused. ``on_error`` "skip"
    leaves out damaged pictures, for which every picture is decoded before training.

    It shards by itself: give the Trainer ``use_distributed_sampler=False``.
    """

    def __init__(
        self,
        *,
        source: SourceConfig,
        transform: TransformConfig,
        seed: int,
        batch_size: int,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        masks: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(
            seed=seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
        )
        self.source = open_source(source, on_error=on_error, masks=masks)
        self.transform = transform
        self.masks = masks
        self.on_error = on_error
        self._train: DetectionDataset | None = None
        self._val: DetectionDataset | None = None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Read and check annotations, decode what fits the cache; ``validate`` needs no train."""
        if self._val is None:
            val = self._read("val")
            if not any(record.targets for record in val.images):
                raise DataError(
                    f"{val.annotation_file}: 'annotations' has no object that is not a crowd, so "
                    f"there is nothing to score; put annotated pictures into the validation split"
                )
            self._val = self._dataset(val, is_train=False)
        if self._train is None and stage != "validate":
            train, val = self._read("train"), self.val_index
            refuse_unlike(train, val)
            if isinstance(self.source, CocoFolderSource):  # a few drawn digits may lack a class
                refuse_unseen(train, val)
            self._train = self._dataset(train, is_train=True)

    def _read(self, split: str) -> CocoIndex:
        index = self.source.index(split)
        if self.on_error == "skip":
            index = without_unreadable(index, partial(read_picture, index))
        if not index.images:
            why = f" but damaged pictures: {index.left_out[0]}" if index.left_out else ""
            raise DataError(
                f"{index.annotation_file}: 'images' is empty{why}; list at least one picture"
            )
        return index

    def _dataset(self, index: CocoIndex, is_train: bool) -> DetectionDataset:
        decoded_bytes = sum(3 * record.height * record.width for record in index.images)
        dataset = DetectionDataset(
            index=index,
            transform=self.transform,
            train=is_train,
            seed=self.seed,
            max_instances=min(MAX_INSTANCES, max(1, *(r.targets for r in index.images))),
            cache=decoded_bytes <= CACHE_LIMIT_BYTES,
            masks=self.masks,
        )
        dataset.preload()  # a damaged picture shows now, not after an hour of training
        return dataset

    @property
    def train_index(self) -> CocoIndex:
        return _ready(self._train).index

    @property
    def val_index(self) -> CocoIndex:
        return _ready(self._val).index

    @property
    def num_classes(self) -> int:
        """Including the background."""
        return self.val_index.num_classes

    @property
    def class_names(self) -> dict[int, str]:
        return self.val_index.class_names

    @property
    def label_to_category(self) -> dict[int, int]:
        return self.val_index.label_to_category

    @property
    def max_instances(self) -> int:
        """Rows of a training sample's padded targets."""
        return _ready(self._train).max_instances

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def val_fingerprint(self) -> str:
        """Of the validation split alone, as far as it is read."""
        return fingerprint(self.val_index)

    @property
    def train_set(self) -> DetectionDataset:
        return _ready(self._train)

    @property
    def val_set(self) -> DetectionDataset:
        return _ready(self._val)

    def described(self, split: str) -> str:
        index = self.train_index if split == "train" else self.val_index
        return f"{index.annotation_file}: {len(index.images)} {CALLED[split]} pictures"

    @property
    def left_out(self) -> dict[str, tuple[str, ...]]:
        return {"train": self.train_index.left_out, "val": self.val_index.left_out}


def _ready(dataset: DetectionDataset | None) -> DetectionDataset:
    if dataset is None:
        raise RuntimeError("call prepare_data() and setup() before using the datamodule")
    return dataset
