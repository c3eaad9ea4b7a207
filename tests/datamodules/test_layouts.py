"""The common layouts of COCO's format are found by themselves; what is ambiguous or absent is one
clear complaint.
"""

import json
import shutil
from pathlib import Path

import pytest

from datamodules import DataError, find_split, fingerprint, read_coco
from datamodules.layouts import split_of

OFFICIAL = ("annotations/instances_{}2017.json", "{}2017")
LAYOUTS = {
    "official": OFFICIAL,
    "one folder of pictures": ("annotations/instances_{}.json", "images"),
    "pictures by split": ("annotations/instances_{}.json", "{}"),
    "pictures by split inside images": ("annotations/instances_{}.json", "images/{}"),
    "bare names": ("annotations/{}.json", "images"),
    "bare names, pictures by split": ("annotations/{}.json", "{}"),
    "roboflow": ("{}/_annotations.coco.json", "{}"),
}


def arrange(source: Path, target: Path, annotations: str, pictures: str, val: str = "val") -> Path:
    """A copy of a folder in the tests' own layout, in another one."""
    for split, word in (("train", "train"), ("val", val)):
        file = target / annotations.format(word)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source / "images", target / pictures.format(word), dirs_exist_ok=True)
        shutil.copy(source / "annotations" / f"instances_{split}.json", file)
    return target


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("val", ["val", "valid"])
def test_every_layout_is_the_same_data(layout, val, content, write_folder, tmp_path):
    own = write_folder(content)
    there = arrange(own, tmp_path / "there", *LAYOUTS[layout], val=val)
    for split in ("train", "val"):
        index = read_coco(*find_split(there, split))
        assert fingerprint(index) == fingerprint(read_coco(*find_split(own, split)))
        assert index.path(index.images[0]).is_file()


def one_file(content: dict, folder: Path, name: str, prefixes: list[str]) -> Path:
    """A folder with one annotation file, whose pictures are named with ``prefixes`` in turn."""
    folder.mkdir()
    for entry, prefix in zip(content["images"], prefixes, strict=True):
        entry["file_name"] = f"{prefix}{entry['file_name']}"
        picture = folder / "images" / entry["file_name"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"pixels")
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", ["annotations.json", "annotations/instances_default.json"])
@pytest.mark.parametrize("prefixes", [["train/", "val/", "test/"], ["train_", "val-", "test_"]])
def test_one_file_is_split_by_the_pictures_names(name, prefixes, content, tmp_path):
    folder = one_file(content, tmp_path / "one", name, prefixes)
    train, val = (read_coco(*find_split(folder, split)) for split in ("train", "val"))
    assert [image.id for image in train.images] == [7]
    assert [(image.id, len(image.labels)) for image in val.images] == [(3, 3)]
    assert train.categories == val.categories


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train/1.jpg", "train"),
        ("images/train2017/1.jpg", "train"),
        ("training/val_1.jpg", "train"),
        ("valid\\1.jpg", "val"),
        ("val_1.jpg", "val"),
        ("test-1.jpg", "test"),
        ("trains/valley.jpg", ""),
        ("1.jpg", ""),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_of(name) == split


def test_pictures_without_a_split_are_named(content, tmp_path):
    folder = one_file(content, tmp_path / "one", "annotations.json", ["train/", "val/", "x/"])
    message = r"annotations\.json: 1 of 3 pictures do not say their split: x/b\.png; name them"
    with pytest.raises(DataError, match=message):
        read_coco(*find_split(folder, "train"))


def test_a_split_that_no_name_says_is_named(content, tmp_path):
    folder = one_file(content, tmp_path / "one", "annotations.json", ["train/"] * 3)
    with pytest.raises(DataError, match="no picture's name says split 'val'; the names say train"):
        read_coco(*find_split(folder, "val"))


def test_two_annotation_files_of_a_split_are_refused(content, write_folder):
    folder = write_folder(content)
    file = folder / "annotations" / "instances_val.json"
    shutil.copy(file, folder / "annotations" / "val.json")
    both = r"annotations/instances_val\.json and annotations/val\.json could each be"
    with pytest.raises(DataError, match=f"split 'val' is ambiguous: {both}.*; keep one"):
        find_split(folder, "val")
    assert find_split(folder, "train").annotations.name == "instances_train.json"


def test_pictures_in_two_folders_are_refused_unless_one_is_a_link(content, write_folder):
    folder = write_folder(content)
    (folder / "train").symlink_to(folder / "images")
    assert find_split(folder, "train").images == folder / "images"
    (folder / "train").unlink()
    shutil.copytree(folder / "images", folder / "train")
    with pytest.raises(DataError, match=r"c\.png, is in images and in train of .* ambiguous"):
        find_split(folder, "train")


def test_the_folder_that_holds_the_pictures_is_taken(content, write_folder):
    folder = write_folder(content)
    shutil.move(folder / "images", folder / "train2017")
    (folder / "images").mkdir()
    assert find_split(folder, "train").images == folder / "train2017"
    shutil.rmtree(folder / "train2017")
    (folder / "images").rmdir()
    with pytest.raises(DataError, match=r"first picture, c\.png, is not in .*looked for images/"):
        find_split(folder, "train")


def test_a_name_at_the_seam_of_two_chunks_is_read(content, write_folder, monkeypatch):
    folder = write_folder(content)
    (folder / "train").mkdir()
    text = (folder / "annotations" / "instances_train.json").read_text()
    for size in range(text.index("file_name"), text.index("c.png") + 6):
        monkeypatch.setattr("datamodules.layouts._CHUNK_BYTES", size)
        assert find_split(folder, "train").images == folder / "images"


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (["labels.csv"], "csv:FOLDER"),
        (["data.yaml", "train/labels/1.txt"], "YOLO"),
        (["Annotations/1.xml"], "Pascal VOC"),
        (["train/cat/1.jpg", "val/cat/2.jpg"], "folder:FOLDER"),
    ],
)
def test_another_layout_is_recognised(files, hint, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=f"split 'train' not found.*it looks like.*{hint}"):
        find_split(tmp_path, "train")
