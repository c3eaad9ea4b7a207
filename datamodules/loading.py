"""What the datamodules of all tasks share: pictures decoded once, and the loaders of two splits."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from datamodules.errors import DataError
from datamodules.sampling import EpochSampler, current_rank

CALLED = {"train": "training", "val": "validation"}  # splits, in complaints


class PictureDataset(Dataset[dict[str, Any]], ABC):
    """Samples by (epoch, i) of pictures that are decoded once where there is a cache."""

    def __init__(self, *, train: bool, cache: bool) -> None:
        self.train = train
        self._decoded: dict[int, Tensor] | None = {} if cache else None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, i: int) -> Tensor:
        """uint8 [3, height, width] of picture i, decoded."""

    def picture(self, i: int) -> Tensor:
        """uint8 [3, height, width] of picture i, from the cache where there is one."""
        if self._decoded is None:
            return self.read(i)
        if i not in self._decoded:
            self._decoded[i] = self.read(i)
        return self._decoded[i]

    def preload(self) -> None:
        """Fill the cache now, so that workers forked later share it."""
        if self._decoded is not None:
            for i in range(len(self)):
                self.picture(i)


class TwoSplits(pl.LightningDataModule, ABC):
    """Train and validation loaders; batch sizes are per device.

    It shards by itself: give the Trainer ``use_distributed_sampler=False``.
    """

    def __init__(
        self, *, seed: int, batch_size: int, eval_batch_size: int | None, num_workers: int
    ) -> None:
        super().__init__()
        self.seed = seed
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers

    @property
    @abstractmethod
    def train_set(self) -> PictureDataset:
        """The training split, once it is set up."""

    @property
    @abstractmethod
    def val_set(self) -> PictureDataset:
        """The validation split, once it is set up."""

    @abstractmethod
    def described(self, split: str) -> str:
        """Where the samples of ``split`` stand and how many there are, for complaints."""

    @property
    @abstractmethod
    def left_out(self) -> dict[str, tuple[str, ...]]:
        """By split, a complaint about each damaged picture that is not in it."""

    @property
    def batches_per_epoch(self) -> int:
        """Optimiser steps per epoch of each device, before any accumulation."""
        _, world_size = current_rank()
        return len(self.train_set) // world_size // self.batch_size

    def train_dataloader(self) -> DataLoader:
        if self.batches_per_epoch == 0:
            raise DataError(
                f"{self.described('train')} do not fill one batch of batch_size {self.batch_size} "
                f"per device; lower batch_size"
            )
        return self._loader(self.train_set, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.val_set, self.eval_batch_size)

    def _loader(self, dataset: PictureDataset, batch_size: int) -> DataLoader:
        return epoch_loader(
            dataset,
            length=len(dataset),
            train=dataset.train,
            batch_size=batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
        )


class ResumableLoader(DataLoader):
    """A loader over an `EpochSampler` that can go on inside an epoch. Lightning keeps its state in
    checkpoints: how many batches of the epoch it has given.
    """

    _begun = _given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, so that all of this waits for the first batch to be asked for: a resumed run
        # says only then which epoch it is in, and workers would have begun on the first.
        self._given, self._begun = self._begun, 0
        if isinstance(self.sampler, EpochSampler):
            self.sampler.pass_over(self._given * (self.batch_size or 1))
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next epoch begins after the batches that were given when the state was taken."""
        self._begun = state["batches"]


def channels_last_batch(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The default batch of samples, with the pictures channels last in memory as they were."""
    pictures = [sample["image"].permute(1, 2, 0) for sample in samples]
    batch: dict[str, Any] = default_collate(
        [{**sample, "image": rows} for sample, rows in zip(samples, pictures, strict=True)]
    )
    return {**batch, "image": batch["image"].permute(0, 3, 1, 2)}


def epoch_loader(
    dataset: Dataset[Any], *, length: int, train: bool, batch_size: int, seed: int, num_workers: int
) -> DataLoader:
    """Batches of a dataset that answers to (epoch, i), shuffled and without a partial last batch in
    training.
    """
    return ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(length=length, seed=seed, shuffle=train),
        drop_last=train,
        num_workers=num_workers,
        collate_fn=channels_last_batch,
        persistent_workers=num_workers > 0,
        # Forked workers share the decoded pictures; elsewhere the platform's own way is safer.
        multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
        pin_memory=torch.cuda.is_available(),
        # A loader draws a seed for its workers; from here, it leaves the global stream alone.
        generator=torch.Generator(),
    )
