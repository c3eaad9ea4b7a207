import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.class_sources import open_class_source
from datamodules.errors import DataError
from datamodules.image_folder import ImageFolderConfig
from datamodules.inaturalist import INaturalistBoxesConfig, INaturalistConfig, enlarged
from datamodules.labels_csv import LabelsCsvConfig

# File and class of every picture of the test's own data, in both splits.
FILES = {
    "train": [("b1.png", "bird"), ("a1.png", "ant"), ("a2.jpg", "ant"), ("c1.png", "cat")],
    "val": [("a3.png", "ant"), ("c2.png", "cat")],
}
CATEGORIES = [{"id": 20, "name": "cat"}, {"id": 3, "name": "ant"}, {"id": 7, "name": "bird"}]
UNUSED = {"id": 5, "name": "dodo"}
IDS = {c["name"]: c["id"] for c in CATEGORIES}


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30 + number, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_folder(root: Path) -> ImageFolderConfig:
    for split, files in FILES.items():
        for number, (file, name) in enumerate(files):
            draw(root / split / name / file, number)
    (root / "val" / "ant" / "notes.txt").write_text("no picture")
    (root / "val" / ".cache").mkdir()
    return ImageFolderConfig(root=str(root))


def write_csv(root: Path, **columns: str) -> LabelsCsvConfig:
    lines = ["path,split,class,width"]
    for split, files in FILES.items():
        for number, (file, name) in enumerate(files):
            draw(root / "images" / file, number)
            lines.append(f"images/{file},{split},{name},30")
    lines.append("images/unread.png,test,dodo,30")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return LabelsCsvConfig(root=str(root), **columns)


def contents(split: str, boxes: bool) -> dict[str, Any]:
    images, annotations = [], []
    for number, (file, name) in enumerate(FILES[split]):
        entry = {"id": 100 - number, "file_name": f"all/{file}", "height": 20, "width": 30 + number}
        images.append(entry)
        label = {"id": number, "image_id": entry["id"], "category_id": IDS[name]}
        annotations.append(label | ({"bbox": [4, 6, 10, 8]} if boxes else {}))
    if boxes:
        annotations.append(annotations[1] | {"id": 50, "bbox": [0, 0, 4, 20]})
    return {"images": images, "annotations": annotations, "categories": [*CATEGORIES, UNUSED]}


def write_json(root: Path, boxes: bool = False) -> INaturalistConfig | INaturalistBoxesConfig:
    config = INaturalistBoxesConfig(root=str(root)) if boxes else INaturalistConfig(root=str(root))
    for split, files in FILES.items():
        for number, (file, _) in enumerate(files):
            draw(root / "all" / file, number)
        write_annotations(config, split, contents(split, boxes))
    return config


def write_annotations(config, split: str, content: Any) -> None:
    file = Path(config.root) / config.annotations.format(split=split)
    file.write_text(json.dumps(content))


def write_boxes(root: Path) -> INaturalistBoxesConfig | INaturalistConfig:
    return write_json(root, boxes=True)


def samples(config, split: str) -> list[tuple[str, str]]:
    index = open_class_source(config).index(split)
    assert all(index.path(p).is_file() for p in index.pictures)
    return [(Path(p.file_name).name, index.class_names[p.class_number]) for p in index.pictures]


def complaint(config, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        open_class_source(config).index(split)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("write", [write_folder, write_csv, write_json, write_boxes])
def test_a_validation_split_by_itself_has_its_own_classes(write, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.FILES", {"val": FILES["val"]})
    source = open_class_source(write(tmp_path))
    assert source.index("val").class_names == ("ant", "cat")
    with pytest.raises(DataError, match="train"):
        source.index("train")


@pytest.mark.parametrize("write", [write_folder, write_csv, write_json])
def test_every_form_of_the_same_data_has_the_same_labels(write, tmp_path):
    config = write(tmp_path)
    for split, files in FILES.items():
        assert sorted(samples(config, split)) == sorted(files)
    index = open_class_source(config).index("val")
    wanted = ("ant", "bird", "cat")  # by name; the ids 3, 7, 20 are in the same order
    assert index.class_names == wanted
    assert {p.class_number for p in index.pictures} == {0, 2}


@pytest.mark.parametrize("write", [write_folder, write_csv, write_json, write_boxes])
def test_fingerprint_sees_content_and_not_the_place(write, tmp_path):
    config = write(tmp_path / "one")
    before = open_class_source(config).fingerprint
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    moved = type(config)(root=str(tmp_path / "two"))
    assert open_class_source(moved).fingerprint == before
    picture = next((tmp_path / "two").rglob("c2.png"))
    picture.write_bytes(picture.read_bytes() + b"more")
    assert open_class_source(moved).fingerprint != before


def test_fingerprint_sees_another_label(tmp_path):
    config = write_csv(tmp_path)
    before = open_class_source(config).fingerprint
    file = tmp_path / "labels.csv"
    file.write_text(file.read_text().replace("c2.png,val,cat", "c2.png,val,bird"))
    assert open_class_source(config).fingerprint != before


def test_numbered_classes_are_ordered_as_numbers(tmp_path):
    config = write_csv(tmp_path)
    file = tmp_path / "labels.csv"
    text = file.read_text().replace("ant", "10").replace("bird", "9").replace("cat", "100")
    file.write_text(text)
    assert open_class_source(config).index("val").class_names == ("9", "10", "100")


def test_columns_and_splits_have_the_names_that_the_config_gives(tmp_path):
    write_csv(tmp_path)
    file = tmp_path / "labels.csv"
    text = file.read_text().replace("path,split,class", "picture,part,kind")
    file.write_text("\ufeff" + text.replace(",val,", ",held out,"))
    columns = {"path_column": "picture", "split_column": "part", "class_column": "kind"}
    config = LabelsCsvConfig(root=str(tmp_path), val="held out", **columns)
    assert samples(config, "val") == FILES["val"]


def test_each_box_is_a_sample_and_unused_categories_are_no_classes(tmp_path):
    index = open_class_source(write_boxes(tmp_path)).index("train")
    assert index.class_names == ("ant", "bird", "cat")
    found = [(p.file_name, p.class_number, p.region) for p in index.pictures]
    assert found == [  # by image id, and box (4, 6, 10, 8) times 1.5 is (1.5, 4, 15, 12)
        ("all/c1.png", 2, (1, 4, 17, 16)),
        ("all/a2.jpg", 0, (1, 4, 17, 16)),
        ("all/a1.png", 0, (1, 4, 17, 16)),
        ("all/a1.png", 0, (0, 0, 5, 20)),
        ("all/b1.png", 1, (1, 4, 17, 16)),
    ]


@pytest.mark.parametrize("context", [1.0, 1.5, 3.0])
def test_a_box_grows_about_its_centre_and_stays_in_the_picture(context):
    assert enlarged([40, 50, 60, 90], context, 1000, 1000) == (
        50 - 10 * context,
        70 - 20 * context,
        50 + 10 * context,
        70 + 20 * context,
    )
    left, top, right, bottom = enlarged([0, 5, 60, 90], context, 62, 95)
    assert (left, right) == (0, 60 if context == 1 else 62)
    assert top >= 0
    assert bottom <= 95


def test_a_missing_split_says_what_is_there(tmp_path):
    config = write_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / "validation")
    message = complaint(config, "val")
    for part in (f"{tmp_path}/val", "'val'", "train, validation", "rename or move"):
        assert part in message

    config = write_csv(tmp_path)
    file = tmp_path / "labels.csv"
    file.write_text(file.read_text().replace(",val,", ",valid,"))
    message = complaint(config, "val")
    for part in (str(file), "'split'", "'val'", "'test', 'train', 'valid'", "set train and val"):
        assert part in message

    assert "no such annotation file" in complaint(INaturalistConfig(root=str(tmp_path)))


def test_an_empty_class_folder_is_named(tmp_path):
    config = write_folder(tmp_path)
    for file in (tmp_path / "train" / "ant").glob("a*"):
        file.unlink()
    message = complaint(config)
    for part in ("train/ant: class 'ant' of split 'train'", ".jpg", "remove the folder"):
        assert part in message


def test_pictures_beside_the_class_folders_are_no_split(tmp_path):
    draw(tmp_path / "train" / "a.png", 0)
    message = complaint(ImageFolderConfig(root=str(tmp_path)))
    assert "train: split 'train' has no folder of a class; put every picture" in message


@pytest.mark.parametrize("write", [write_folder, write_csv, write_json, write_boxes])
def test_a_class_of_validation_that_training_lacks_is_named(write, tmp_path):
    config = write(tmp_path)
    key, times = "cat", 1
    if write is write_folder:
        shutil.rmtree(tmp_path / "train" / "cat")
    elif write is write_csv:
        file = tmp_path / "labels.csv"
        file.write_text(file.read_text().replace("c1.png,train,cat", "c1.png,train,ant"))
    else:
        content = contents("train", boxes=write is write_boxes)
        content["annotations"][3]["category_id"] = 3
        write_annotations(config, "train", content)
        key, times = "20", 2 if write is write_boxes else 1
    message = complaint(config, "val")
    for part in (f"class '{key}' (cat) occurs {times} times here and never in training", "remove"):
        assert part in message


def test_a_category_of_another_name_in_validation_is_refused(tmp_path):
    config = write_json(tmp_path)
    content = contents("val", boxes=False)
    content["categories"][0]["name"] = "lynx"
    write_annotations(config, "val", content)
    message = complaint(config, "val")
    assert "val2017.json: class '20' is named 'lynx' here and 'cat' in" in message


@pytest.mark.parametrize("write", [write_csv, write_json, write_boxes])
def test_missing_pictures_are_counted_and_named(write, tmp_path):
    config = write(tmp_path)
    next(tmp_path.rglob("a2.jpg")).unlink()
    message = complaint(config)
    assert "1 of 4 pictures are missing" in message
    assert "a2.jpg" in message
    assert "add the files or remove" in message


@pytest.mark.parametrize("write", [write_csv, write_json, write_boxes])
def test_missing_pictures_are_left_out_when_asked(write, tmp_path):
    config = write(tmp_path)
    missing = next(tmp_path.rglob("a2.jpg"))
    missing.unlink()
    index = open_class_source(config, on_error="skip").index("train")
    assert index.left_out == (f"{missing}: missing",)
    assert {Path(p.file_name).name for p in index.pictures} == {"b1.png", "a1.png", "c1.png"}


def test_a_picture_with_a_box_outside_is_left_out_when_asked(tmp_path):
    config, content = write_boxes(tmp_path), contents("train", boxes=True)
    content["annotations"][0]["bbox"] = [400, 6, 10, 8]
    write_annotations(config, "train", content)
    assert "outside the picture" in complaint(config)
    index = open_class_source(config, on_error="skip").index("train")
    assert len(index.left_out) == 1
    assert "all/b1.png" not in {p.file_name for p in index.pictures}


@pytest.mark.parametrize("boxes", [False, True])
def test_whole_floats_are_ids(boxes, tmp_path):
    config = write_json(tmp_path, boxes)
    before = samples(config, "train")
    content = contents("train", boxes)
    for entry in content["annotations"]:
        entry |= {key: float(entry[key]) for key in ("image_id", "category_id")}
    write_annotations(config, "train", content)
    assert samples(config, "train") == before


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("path,split", "file,split", ["no column 'path'", "'file', 'split'", "set path_column"]),
        ("b1.png,train,bird", "b1.png,train,", ["line 2 has no 'class'", "fill it in"]),
        ("b1.png,train,bird,30", "b1.png,train", ["line 2 has no 'class'"]),
        ("a1.png", "b1.png", ["path 'images/b1.png' is in line 2 and again in line 3", "keep"]),
    ],
)
def test_a_broken_csv_is_refused_with_line_and_column(old, new, parts, tmp_path):
    config = write_csv(tmp_path)
    file = tmp_path / "labels.csv"
    file.write_text(file.read_text().replace(old, new, 1))
    message = complaint(config)
    for part in (str(file), *parts):
        assert part in message


@pytest.mark.parametrize(
    ("raw", "part"),
    [(b"", "no column 'path'; the first line names none"), (b"\xff\xfe\x00", "not a CSV file")],
)
def test_a_csv_that_is_none_is_refused(raw, part, tmp_path):
    config = write_csv(tmp_path)
    (tmp_path / "labels.csv").write_bytes(raw)
    assert part in complaint(config)
    (tmp_path / "labels.csv").unlink()
    assert "labels.csv: no such file; check the data's root and file" in complaint(config)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"category_id": 99}, ["annotations[0] has category_id 99", "remove the annotation"]),
        ({"image_id": None}, ["annotations[0] has image_id None", "not listed"]),
        ({"image_id": 99}, ["image 99 (all/a1.png) has category_id 7 and 3", "keep one"]),
    ],
)
def test_labels_that_do_not_fit_the_pictures_are_refused(change, parts, tmp_path):
    config = write_json(tmp_path)
    content = contents("train", boxes=False)
    content["annotations"][0] |= change
    write_annotations(config, "train", content)
    message = complaint(config)
    for part in ("train2017.json", *parts):
        assert part in message


def test_a_picture_without_label_is_refused(tmp_path):
    config = write_json(tmp_path)
    content = contents("train", boxes=False)
    del content["annotations"][2]
    write_annotations(config, "train", content)
    assert "image 98 (all/a2.jpg) has no annotation; label it or remove it" in complaint(config)


def test_a_box_outside_its_picture_is_refused(tmp_path):
    config = write_boxes(tmp_path)
    content = contents("train", boxes=True)
    content["annotations"][0]["bbox"] = [200, 2, 10, 10]
    write_annotations(config, "train", content)
    message = complaint(config)
    for part in ("image 100 (all/b1.png), 30 x 20 pixels", "[200.0, 2.0, 210.0, 12.0]", "remove"):
        assert part in message


@pytest.mark.parametrize("kind", [ImageFolderConfig, LabelsCsvConfig, INaturalistConfig])
def test_an_empty_root_is_refused(kind):
    with pytest.raises(DataError, match="root is empty; set the data's root"):
        open_class_source(kind())


def test_boxes_cannot_shrink_to_nothing():
    with pytest.raises(DataError, match="context is 0; give a factor above 0"):
        INaturalistBoxesConfig(context=0)


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("annotations/instances_train.json", "coco:FOLDER and a detector"),
        ("train/_annotations.coco.json", "coco:FOLDER and a detector"),
        ("labels.csv", "csv:FOLDER"),
    ],
)
def test_a_folder_of_another_layout_is_recognised(file, hint, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    source = open_class_source(ImageFolderConfig(root=str(tmp_path)))
    with pytest.raises(DataError, match=f"split 'train' (is missing|has no folder).*{hint}; or "):
        source.index("train")
