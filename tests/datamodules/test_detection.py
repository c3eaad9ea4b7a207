import numpy as np
import pytest
import torch
from torch import distributed

from datamodules import (
    CocoFolderConfig,
    DataError,
    DetectionDataModule,
    DetectionDataset,
    TransformConfig,
    find_split,
    open_source,
    read_coco,
)

STILL = TransformConfig(side=80, flip=False, scale_jitter=(1.0, 1.0))


def dataset(root, **options):
    index = read_coco(*find_split(root, "train"), masks=options.get("masks", False))
    defaults = {"transform": STILL, "train": True, "seed": 0, "max_instances": 4}
    return DetectionDataset(index=index, **defaults | options)


def module(root, **options):
    defaults = {"transform": TransformConfig(side=64), "seed": 0, "batch_size": 2}
    built = DetectionDataModule(source=CocoFolderConfig(root=str(root)), **defaults | options)
    built.prepare_data()
    built.setup()
    return built


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


@pytest.mark.parametrize(("train", "pixels"), [(True, torch.uint8), (False, torch.float32)])
def test_a_sample_has_its_documented_shapes(train, pixels, content, write_folder):
    sample = dataset(write_folder(content), train=train)[0, 0]
    shapes = {k: (tuple(v.shape), v.dtype) for k, v in sample.items() if k != "image_id"}
    assert shapes == {
        "image": ((3, 80, 80), pixels),
        "boxes": ((4, 4), torch.float32),
        "labels": ((4,), torch.int64),
        "scale": ((2,), torch.float32),
        "size": ((2,), torch.int64),
        "valid": ((2,), torch.int64),
    }
    assert sample["image_id"] == 3
    assert sample["size"].tolist() == sample["valid"].tolist() == [60, 80]


@pytest.mark.parametrize("train", [True, False])
def test_crowds_are_no_targets(train, content, write_folder):
    sample = dataset(write_folder(content), train=train)[0, 0]
    assert sample["labels"].tolist() == [1, 2, 0, 0]
    expected = [[40, 20, 70, 50], [10, 5, 30, 35], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert sample["boxes"].tolist() == expected


def test_a_sample_with_masks_is_the_sample_and_its_masks(masked_content, write_folder):
    root = write_folder(masked_content)
    options = {"transform": TransformConfig(side=64, scale_jitter=(0.5, 2.0))}
    plain, masked = dataset(root, **options), dataset(root, masks=True, **options)
    for key in [(0, 0), (1, 0), (0, 1), (3, 2)]:
        sample = masked[key]
        masks = sample.pop("masks")
        assert (tuple(masks.shape), masks.dtype) == ((4, 112, 112), torch.uint8)
        assert not masks[sample["labels"] == 0].any()
        assert_same([sample], [plain[key]])


def test_masks_belong_to_their_boxes_and_crowds_have_none(masked_content, write_folder):
    """Each object fills the upper left half of its box, so of its cells; the crowd comes first."""
    masked_content["annotations"][2]["id"] = 0
    masks = dataset(write_folder(masked_content), masks=True)[0, 0]["masks"] > 127
    rows, columns = torch.meshgrid(torch.arange(112), torch.arange(112), indexing="ij")
    assert masks[2:].sum() == 0
    for mask in masks[:2]:
        inside = (rows + columns < 95) & (rows > 12) & (columns > 12)  # edges are rounded
        assert mask[inside].all()
        assert not mask[rows + columns > 122].any()


def test_masks_need_an_index_that_has_them(masked_content, write_folder):
    index = read_coco(*find_split(write_folder(masked_content), "train"))
    with pytest.raises(ValueError, match=r"train\.json has no masks; read it with masks=True"):
        DetectionDataset(
            index=index, transform=STILL, train=True, seed=0, max_instances=4, masks=True
        )


def test_the_module_gives_masks_when_asked(masked_content, write_folder):
    root = write_folder(masked_content)
    plain, masked = module(root), module(root, masks=True)
    assert masked.val_index.has_masks
    assert not plain.val_index.has_masks
    assert masked.fingerprint != plain.fingerprint
    for mine, other in (
        (masked.train_dataloader(), plain.train_dataloader()),
        (masked.val_dataloader(), plain.val_dataloader()),
    ):
        batches = list(mine)
        assert all(len(batch.pop("masks")) == len(batch["image"]) for batch in batches)
        assert_same(batches, list(other))


def test_the_fingerprint_sees_a_corrected_mask_where_masks_are_learned(
    masked_content, write_folder
):
    before = write_folder(masked_content, "before")
    masked_content["annotations"][0]["segmentation"][0][0] += 3
    after = write_folder(masked_content, "after")
    assert module(after).fingerprint == module(before).fingerprint
    assert module(after, masks=True).fingerprint != module(before, masks=True).fingerprint


def test_a_set_without_masks_is_refused_when_they_are_asked_for(content, write_folder):
    root = write_folder(content)
    with pytest.raises(DataError, match=r"val\.json: annotation 2 on a\.png has no 'segment"):
        module(root, masks=True)


def test_no_more_than_max_instances_are_kept(content, write_folder):
    assert dataset(write_folder(content), max_instances=1)[0, 0]["labels"].tolist() == [1]


def test_a_picture_without_objects_has_empty_targets(content, write_folder):
    sample = dataset(write_folder(content))[0, 2]
    assert sample["labels"].tolist() == [0] * 4
    assert not sample["boxes"].any()


def test_a_sample_depends_on_seed_epoch_and_index_alone(content, write_folder):
    root = write_folder(content)
    one = dataset(root, transform=TransformConfig(side=64))
    other = dataset(root, transform=TransformConfig(side=64), cache=True)
    order = [(0, 0), (1, 0), (0, 2), (5, 1)]
    samples = {key: one[key]["image"] for key in order}
    for key in reversed(order):
        torch.testing.assert_close(other[key]["image"], samples[key], rtol=0, atol=0)
    assert not torch.equal(samples[0, 0], samples[1, 0])
    changed = dataset(root, transform=TransformConfig(side=64), seed=1)[0, 0]["image"]
    assert not torch.equal(samples[0, 0], changed)


def test_evaluation_is_the_same_in_every_epoch(content, write_folder):
    data = dataset(write_folder(content), train=False, transform=TransformConfig(side=64))
    assert torch.equal(data[0, 1]["image"], data[7, 1]["image"])


def test_workers_change_nothing(content, write_folder):
    root = write_folder(content)
    alone, forked = module(root), module(root, num_workers=2)
    assert_same(list(alone.val_dataloader()), list(forked.val_dataloader()))
    loaders = alone.train_dataloader(), forked.train_dataloader()
    for epoch in (0, 1, 4):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        assert_same(list(loaders[0]), list(loaders[1]))


def test_loading_leaves_the_global_random_state_alone(content, write_folder):
    data = module(write_folder(content))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(data.train_dataloader()), list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_training_drops_the_last_partial_batch_and_validation_keeps_it(content, write_folder):
    data = module(write_folder(content))
    assert [len(batch["image"]) for batch in data.train_dataloader()] == [2]
    assert [len(batch["image"]) for batch in data.val_dataloader()] == [2, 1]
    assert data.batches_per_epoch == 1


def test_the_module_knows_its_classes(content, write_folder):
    root = write_folder(content)
    data = module(root)
    assert data.num_classes == 3
    assert data.class_names == {1: "dog", 2: "cat"}
    assert data.label_to_category == {1: 4, 2: 9}
    assert data.max_instances == 2
    assert data.val_index.images[0].id == 3
    assert data.fingerprint == open_source(CocoFolderConfig(root=str(root))).fingerprint


def test_ranks_come_from_the_process_group(content, write_folder, monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    data = module(write_folder(content), batch_size=1)
    assert data.batches_per_epoch == 1
    assert len(data.train_dataloader()) == 1
    assert [batch["image_id"].item() for batch in data.val_dataloader()] == [5]


def test_too_large_a_batch_is_refused(content, write_folder):
    data = module(write_folder(content), batch_size=4)
    with pytest.raises(
        DataError, match=r"train\.json: 3 training pictures .* batch_size 4 .*lower"
    ):
        data.train_dataloader()


def test_different_categories_in_the_splits_are_refused(content, write_folder):
    root = write_folder(content)
    file = root / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace("dog", "wolf"))
    with pytest.raises(DataError, match=r"val\.json: 'categories' differ from .*train\.json"):
        module(root)


def test_empty_root_is_refused():
    with pytest.raises(DataError, match="root is empty; set"):
        open_source(CocoFolderConfig())


def test_a_split_without_pictures_is_refused(content, write_folder):
    root = write_folder(content)
    file = root / "annotations" / "instances_val.json"
    file.write_text('{"images": [], "annotations": [], "categories": [{"id": 9, "name": "cat"}, '
                    '{"id": 4, "name": "dog"}]}')  # fmt: skip
    with pytest.raises(DataError, match=r"val\.json: 'images' is empty"):
        module(root)
