"""From JPEG files to a batch at 640 pixels, per core, against torchvision's detection pipeline; and
how much of an embedded run's time waits for data.

Ours is the datamodules' path with nothing cached: decoding, placing (in training with flip and a
jitter of the scale, which resizes every picture) and collating. Theirs is that of torchvision's
references: CocoDetection wrapped for transforms v2, a flip, then the detectors' own resizing and
batching. Its batch is smaller than ours, 480 x 640 instead of a square, and it does not jitter.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from datamodules import DetectionDataset, TransformConfig, find_split, read_coco
from datamodules.detection import MAX_INSTANCES
from datamodules.loading import epoch_loader
from datamodules.sampling import EpochSampler
from datamodules.transforms import MEAN_RGB, STD_RGB
from experiments.bench.contest import Contest, Settings, Side
from experiments.bench.pictures import write_photographs
from experiments.bench.waiting import contest as waiting
from experiments.module import network_input

SIDE, BATCH = 640, 8


def contests(settings: Settings) -> Iterator[Contest]:
    """Reading for training and for evaluation, then a training run's waiting."""
    count = BATCH if settings.quick else 4 * BATCH
    with TemporaryDirectory() as folder:
        write_photographs(Path(folder), count)
        for train in (True, False):
            ours, theirs = OurInput(Path(folder), train), TheirInput(Path(folder), train)
            yield Contest(
                name=f"JPEG to batch, {'training' if train else 'evaluation'}, per core",
                ours=Side("datamodules", ours.epoch, count),
                theirs=Side("torchvision", theirs.epoch, count),
                unit="pictures",
                clock="cpu",
                threads=1,
                facts=ours.facts,
            )
    yield waiting(settings)


class OurInput:
    """Epochs over the folder by the datamodules' own loader, in this process."""

    def __init__(self, folder: Path, train: bool) -> None:
        index = read_coco(*find_split(folder, "train"))
        self.dataset = DetectionDataset(
            index=index,
            transform=TransformConfig(side=SIDE),
            train=train,
            seed=0,
            max_instances=MAX_INSTANCES,
        )
        self.loader = epoch_loader(
            self.dataset,
            length=len(index.images),
            train=train,
            batch_size=BATCH,
            seed=0,
            num_workers=0,
        )

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """One epoch, then the next the next time."""
        yield from self.loader
        if isinstance(self.loader.sampler, EpochSampler):
            self.loader.sampler.set_epoch(self.loader.sampler.epoch + 1)

    def epoch(self) -> None:
        """Read one epoch as the network takes it, and leave it."""
        for batch in self.batches():
            network_input(batch)

    def facts(self, seconds: float) -> dict[str, Any]:
        """What decoding alone costs of an epoch of `seconds`."""
        count = len(self.dataset)
        start = time.process_time()
        for i in range(count):
            self.dataset.read(i)
        decode, whole = ((s * 1e3 / count) for s in (time.process_time() - start, seconds))
        note = f"{decode:.1f} of {whole:.1f} ms a picture is decoding"
        return {"decode_ms": decode, "picture_ms": whole, "note": note}


class TheirInput:
    """The same files by torchvision's reference pipeline and its detectors' first stage."""

    def __init__(self, folder: Path, train: bool) -> None:
        annotations, images, _ = find_split(folder, "train")
        flip = [v2.RandomHorizontalFlip(0.5)] if train else []
        steps = [*flip, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports what it reads
            plain = CocoDetection(images, annotations, transforms=v2.Compose(steps))
        self.loader: DataLoader[Any] = DataLoader(
            wrap_dataset_for_transforms_v2(plain, target_keys=["boxes", "labels", "image_id"]),
            batch_size=BATCH,
            shuffle=train,
            collate_fn=_by_field,
        )
        mean, std = ((value / 255).flatten().tolist() for value in (MEAN_RGB, STD_RGB))
        self.to_batch = GeneralizedRCNNTransform(SIDE, SIDE, mean, std)

    def batches(self) -> Iterator[torch.Tensor]:
        """One epoch of picture batches."""
        for images, targets in self.loader:
            yield self.to_batch(list(images), list(targets))[0].tensors

    def epoch(self) -> None:
        """Read one epoch and leave it."""
        for _ in self.batches():
            pass


def _by_field(samples: list[tuple[Any, Any]]) -> tuple[Any, ...]:
    """Pictures in one tuple, targets in the other, as torchvision's references collate."""
    return tuple(zip(*samples, strict=True))
