"""Damaged pictures and annotations end a run, or are left out of it and counted."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from datamodules import (
    ClassificationDataModule,
    CocoFolderConfig,
    CropConfig,
    DataError,
    DetectionDataModule,
    ImageFolderConfig,
    TransformConfig,
    find_split,
    open_data,
    read_coco,
)
from datamodules.damage import unreadable


def detection(root: Path, on_error: str, **options) -> DetectionDataModule:
    data = DetectionDataModule(
        source=CocoFolderConfig(root=str(root)),
        transform=TransformConfig(side=32),
        seed=0,
        batch_size=1,
        on_error=on_error,
        **options,
    )
    data.prepare_data()
    data.setup()
    return data


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damaged_pictures_are_left_out_and_named(write_folder, content):
    root = write_folder(content)
    cut(root / "images" / "b.png")
    (root / "images" / "c.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures are missing.*c\.png"):
        detection(root, "raise")
    data = detection(root, "skip")
    assert [record.file_name for record in data.train_index.images] == ["a.png"]
    missing, damaged = data.left_out["train"]
    assert missing == f"{root / 'images' / 'c.png'}: missing"
    assert damaged.startswith(f"{root / 'images' / 'b.png'} (image 5 in ")
    assert "damaged or no picture" in damaged
    (batch,) = data.train_dataloader()
    assert batch["image_id"].tolist() == [3]


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        (0, {"bbox": [10, 5, 0, 30]}),
        (0, {"bbox": "x"}),
        (0, {"category_id": 77}),
        (1, {"area": -4.0}),
        (2, {"bbox": [10, 5, 20]}),
    ],
)
def test_a_picture_with_a_damaged_annotation_is_left_out_whole(
    write_folder, content, entry, change
):
    root = write_folder(content | {"annotations": copy.deepcopy(content["annotations"])})
    good = read_coco(*find_split(root, "train"))
    content["annotations"][entry] |= change
    for split in ("train", "val"):
        text = json.dumps(content)
        (root / "annotations" / f"instances_{split}.json").write_text(text)
    with pytest.raises(DataError):
        read_coco(*find_split(root, "train"))
    kept = read_coco(*find_split(root, "train"), on_error="skip")
    assert [record.id for record in kept.images] == [5, 7]
    assert len(kept.left_out) == 1
    for mine, theirs in zip(kept.images, good.images[1:], strict=True):
        assert (mine.boxes == theirs.boxes).all()


def test_an_annotation_of_no_picture_is_left_out_alone(write_folder, content):
    content["annotations"][0]["image_id"] = 99
    root = write_folder(content)
    kept = read_coco(*find_split(root, "train"), on_error="skip")
    assert [len(record.labels) for record in kept.images] == [2, 1, 0]
    assert [said.partition(": ")[2] for said in kept.left_out] == [
        "annotation 2 has image_id 99, which is not listed; add that entry or remove the annotation"
    ]


def test_what_is_wrong_with_the_whole_file_is_refused_all_the_same(write_folder, content):
    root = write_folder(content | {"categories": []})
    with pytest.raises(DataError, match="'categories' is empty"):
        read_coco(*find_split(root, "train"), on_error="skip")


def test_where_nothing_is_damaged_both_ways_are_the_same_data(write_folder, content):
    root = write_folder(content)
    strict, lenient = (detection(root, way) for way in ("raise", "skip"))
    assert strict.fingerprint == lenient.fingerprint
    assert lenient.left_out == {"train": (), "val": ()}
    pairs = zip(strict.train_dataloader(), lenient.train_dataloader(), strict=True)
    assert all(torch.equal(a["image"], b["image"]) for a, b in pairs)


def test_nothing_left_is_refused(write_folder, content):
    root = write_folder(content)
    for path in (root / "images").iterdir():
        cut(path)
    with pytest.raises(DataError, match=r"'images' is empty but damaged pictures: .*a\.png"):
        detection(root, "skip")


def test_damaged_labelled_pictures_are_left_out(write_folder, content, tmp_path):
    write_folder(content)
    folder = tmp_path / "classes"
    for split in ("train", "val"):
        for name, label in (("a.png", "cat"), ("b.png", "cat"), ("c.png", "dog")):
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            (folder / split / label / name).write_bytes(
                (tmp_path / "data" / "images" / name).read_bytes()
            )
    cut(folder / "train" / "cat" / "a.png")
    source = ImageFolderConfig(root=str(folder))

    def module(on_error: str) -> ClassificationDataModule:
        data = ClassificationDataModule(
            source=source, crop=CropConfig(side=16), seed=0, batch_size=1, on_error=on_error
        )
        data.prepare_data()
        data.setup()
        return data

    with pytest.raises(DataError, match=r"a\.png .*is damaged"):
        module("raise")
    data = module("skip")
    assert [p.file_name for p in data.train_index.pictures] == ["cat/b.png", "dog/c.png"]
    assert len(data.left_out["train"]) == 1
    assert data.left_out["val"] == ()


def test_a_missing_labelled_picture_is_left_out_when_asked(write_folder, content, tmp_path):
    root = write_folder(content)
    (root / "labels.csv").write_text(
        "path,split,class\nimages/a.png,train,x\nimages/gone.png,train,x\nimages/b.png,val,x\n"
    )
    from datamodules.labels_csv import LabelsCsvConfig

    with pytest.raises(DataError, match=r"1 of 2 pictures are missing.*gone\.png"):
        open_data(LabelsCsvConfig(root=str(root))).index("train")
    index = open_data(LabelsCsvConfig(root=str(root)), on_error="skip").index("train")
    assert index.left_out == (f"{root / 'images' / 'gone.png'}: missing",)
    assert len(index.pictures) == 1


def test_only_what_concerns_a_split_is_counted_in_it(write_folder, content):
    root = write_folder(content)
    for path in (root / "annotations").iterdir():
        path.unlink()
    names = {7: "train/c.png", 3: "train/a.png", 5: "val/b.png"}
    for entry in content["images"]:
        there = root / "images" / names[entry["id"]]
        there.parent.mkdir(exist_ok=True)
        (root / "images" / entry["file_name"]).rename(there)
        entry["file_name"] = names[entry["id"]]
    content["annotations"][3]["bbox"] = [0, 0, 0, 0]  # of the validation picture
    (root / "annotations.json").write_text(json.dumps(content))
    left_out = {
        split: read_coco(*find_split(root, split), on_error="skip").left_out
        for split in ("train", "val")
    }
    assert left_out["train"] == ()
    assert len(left_out["val"]) == 1


def test_every_item_is_tried():
    def read(n: int) -> None:
        if n % 3 == 0:
            raise DataError(f"{n} is damaged")

    assert unreadable(range(7), read) == {n: f"{n} is damaged" for n in (0, 3, 6)}
