from dataclasses import replace

import numpy as np
import pytest

from datamodules import digits_classes
from datamodules.class_sources import open_class_source
from datamodules.classification import ClassificationDataModule
from datamodules.crops import CropConfig
from datamodules.digits_classes import (
    DigitsClassesConfig,
    digits_classes_fingerprint,
    draw_digit,
    prepare_digits_classes,
)
from datamodules.digits_scene import draw_scene, sources
from datamodules.errors import DataError
from datamodules.opening import training_samples

SMALL = DigitsClassesConfig(train_images=20, val_images=10, side=48, max_size=40)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINENET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_picture_depends_on_seed_split_and_number_alone():
    pixels, value = draw_digit(SMALL, "train", 3)
    again, same = draw_digit(replace(SMALL, train_images=50), "train", 3)
    assert (pixels == again).all()
    assert value == same == 3
    for other in (
        draw_digit(SMALL, "train", 13),
        draw_digit(SMALL, "val", 3),
        draw_digit(replace(SMALL, seed=1), "train", 3),
    ):
        assert (pixels != other[0]).any()


def test_a_picture_shows_one_digit_of_its_class_from_its_split(monkeypatch):
    placed = []

    def record(drawn_from, rng, **options):
        pixels, digits = draw_scene(drawn_from, rng, **options)
        placed.append(digits)
        return pixels, digits

    monkeypatch.setattr(digits_classes, "draw_scene", record)
    for split in ("train", "val"):
        placed.clear()
        values = [draw_digit(SMALL, split, number)[1] for number in range(40)]
        assert values == [number % 10 for number in range(40)]
        own = sources(0, split)
        value_of = dict(zip(own.sample_ids.tolist(), own.values.tolist(), strict=True))
        assert [value_of[digit.sample_id] for (digit,) in placed] == values
        sizes = [max(digit.box[2:]) for (digit,) in placed]
        assert 15 <= min(sizes) < 22
        assert 32 < max(sizes) <= 40


def test_drawing_twice_gives_the_same_files(tmp_path):
    one, other = (prepare_digits_classes(SMALL, tmp_path / name) for name in ("one", "other"))
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert len(files) == 30
    assert all((one / f).read_bytes() == (other / f).read_bytes() for f in files)


def test_second_prepare_draws_nothing(cache, monkeypatch):
    calls = []
    folder = prepare_digits_classes(SMALL, on_progress=lambda *done: calls.append(done))
    assert calls == [(i, 30) for i in range(1, 31)]
    assert folder == cache / f"digits-classes-{digits_classes_fingerprint(SMALL)[:12]}"
    monkeypatch.setattr(digits_classes, "draw_digits_classes", lambda *_: pytest.fail("drew again"))
    assert prepare_digits_classes(SMALL) == folder
    assert [p.name for p in cache.iterdir()] == [folder.name]


def test_losing_the_race_keeps_the_winners_folder(cache, monkeypatch):
    real_draw = digits_classes.draw_digits_classes

    def slow_draw(config, folder, on_progress=None):
        real_draw(config, folder, on_progress)
        winner = cache / f"digits-classes-{digits_classes_fingerprint(config)[:12]}"
        real_draw(config, winner)
        (winner / "winner").touch()

    monkeypatch.setattr(digits_classes, "draw_digits_classes", slow_draw)
    folder = prepare_digits_classes(SMALL)
    assert (folder / "winner").exists()
    assert [p.name for p in cache.iterdir()] == [folder.name]


def test_interrupted_drawing_leaves_nothing(cache):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_digits_classes(SMALL, on_progress=interrupt)
    assert list(cache.iterdir()) == []


def test_fingerprint_is_known_without_drawing(cache, monkeypatch):
    fingerprint = open_class_source(SMALL).fingerprint
    assert not cache.exists()
    assert fingerprint == open_class_source(replace(SMALL, min_size=16.0)).fingerprint
    assert fingerprint != open_class_source(replace(SMALL, seed=1)).fingerprint
    monkeypatch.setattr(digits_classes, "DRAWING_VERSION", digits_classes.DRAWING_VERSION + 1)
    assert fingerprint != open_class_source(SMALL).fingerprint


def test_samples_are_counted_without_drawing(cache):
    assert training_samples(SMALL) == SMALL.train_images
    assert not cache.exists()
    assert len(open_class_source(SMALL).index("train").pictures) == SMALL.train_images


def test_drawn_digits_load_as_any_folder_of_classes():
    data = ClassificationDataModule(source=SMALL, crop=CropConfig(side=32), seed=0, batch_size=5)
    data.prepare_data()
    data.setup()
    assert data.class_names == {value: str(value) for value in range(10)}
    assert next(iter(data.train_dataloader()))["image"].shape == (5, 3, 32, 32)
    for index, each in ((data.train_index, 2), (data.val_index, 1)):
        assert np.bincount([p.class_number for p in index.pictures]).tolist() == [each] * 10


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"train_images": 9}, "train_images is 9"),
        ({"max_size": 200}, "max_size 200"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_options_are_refused(options, key):
    with pytest.raises(DataError, match=f"digits-classes: .*{key}.*; give"):
        DigitsClassesConfig(**options)
