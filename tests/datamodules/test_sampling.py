import numpy as np
import pytest

from datamodules import EpochSampler
from datamodules.sampling import augmentation_stream


def keys(epoch=0, **options):
    sampler = EpochSampler(length=22, **{"seed": 0} | options)
    sampler.set_epoch(epoch)
    assert len(list(sampler)) == len(sampler)
    return list(sampler)


def test_order_depends_on_seed_and_epoch_only():
    assert keys() == keys()
    assert [i for _, i in keys(epoch=0)] != [i for _, i in keys(epoch=1)]
    assert keys(seed=0) != keys(seed=1)
    assert {epoch for epoch, _ in keys(epoch=3)} == {3}


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_partition_the_epoch_in_equal_parts(world_size):
    parts = [keys(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {22 // world_size}
    union = {key for part in parts for key in part}
    assert len(union) == 22 // world_size * world_size


def test_a_step_sees_the_same_pictures_on_one_device_and_on_two():
    alone = keys()
    first, second = (keys(rank=rank, world_size=2) for rank in (0, 1))
    for step in range(5):
        mine = slice(2 * step, 2 * step + 2)
        assert set(alone[4 * step : 4 * step + 4]) == set(first[mine] + second[mine])


def test_validation_has_every_picture_once_and_in_order():
    assert keys(shuffle=False) == [(0, i) for i in range(22)]
    parts = [keys(shuffle=False, rank=rank, world_size=4) for rank in range(4)]
    assert sorted(key for part in parts for key in part) == keys(shuffle=False)


def test_augmentation_is_of_seed_epoch_and_sample_and_of_no_stream_that_pictures_are_drawn_from():
    def first(rng):
        return rng.random(4).tolist()

    assert first(augmentation_stream(0, (1, 7))) == first(augmentation_stream(0, (1, 7)))
    places = [(seed, epoch, i) for seed in (0, 1) for epoch in (0, 1) for i in (0, 7)]
    augmented = [first(augmentation_stream(seed, (epoch, i))) for seed, epoch, i in places]
    drawn = [first(np.random.default_rng(place)) for place in places]
    assert len({tuple(numbers) for numbers in augmented + drawn}) == len(places) * 2
