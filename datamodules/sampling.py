"""The order of an epoch, as (epoch, index) pairs.

A sample's augmentation is decided by (seed, epoch, index) and the order by (seed, epoch), so
neither the number of workers nor a restart changes what is learnt from.
"""

from collections.abc import Iterator

import numpy as np
from torch import distributed
from torch.utils.data import Sampler

Key = tuple[int, int]
AUGMENTATION = 1  # of the streams that samples are augmented by; pictures are drawn from others


class EpochSampler(Sampler[Key]):
    """Keys of one rank. Rank r of w takes every w-th key from the r-th on.

    So one optimiser step sees the same pictures on 1, 2 or 4 devices when the global batch is the
    same. In training (``shuffle``) the tail that does not fill every rank is dropped; without
    ``shuffle`` every index comes exactly once and in order, and ranks may differ by one.
    """

    def __init__(
        self,
        *,
        length: int,
        seed: int,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        here, count = current_rank()
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.rank = here if rank is None else rank
        self.world_size = count if world_size is None else world_size
        self.epoch = 0
        self._passed_over = 0

    def pass_over(self, count: int) -> None:
        """Leave out the first keys of the next epoch to be asked for, which were dealt before."""
        self._passed_over = count

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.world_size
        return len(range(self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        mine = order[self.rank :: self.world_size][: len(self)]
        epoch, first, self._passed_over = self.epoch, self._passed_over, 0
        return iter([(epoch, i) for i in mine[first:].tolist()])


def augmentation_stream(seed: int, key: Key) -> np.random.Generator:
    """The random numbers that a sample is augmented by in an epoch."""
    return np.random.default_rng(np.random.SeedSequence((seed, *key), spawn_key=(AUGMENTATION,)))


def current_rank() -> tuple[int, int]:
    """(rank, world size) of this process; (0, 1) outside distributed training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
