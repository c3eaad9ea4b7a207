import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules import DataError, find_split, fingerprint, read_coco
from datamodules.coco import COCO_IDS


def read(root, split="train"):
    return read_coco(*find_split(root, split))


def complaint(root) -> str:
    with pytest.raises(DataError) as caught:
        read(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_index_is_sorted_and_has_corners_and_labels_without_gaps(content, write_folder):
    index = read(write_folder(content))
    assert [image.id for image in index.images] == [3, 5, 7]
    first = index.images[0]
    assert first.boxes.dtype == np.float32
    assert first.boxes.tolist() == [[40, 20, 70, 50], [10, 5, 30, 35], [0, 0, 50, 20]]
    assert first.labels.tolist() == [1, 2, 1]
    assert index.label_to_category == {1: 4, 2: 9}
    assert index.class_names == {1: "dog", 2: "cat"}
    assert index.num_classes == 3


def test_crowds_and_empty_pictures_stay_in_the_index(content, write_folder):
    crowded, _, empty = read(write_folder(content)).images
    assert crowded.iscrowd.tolist() == [False, False, True]
    assert crowded.targets == 2
    assert empty.boxes.shape == (0, 4)
    assert empty.labels.shape == (0,)


def test_area_is_the_masks_where_given_and_the_boxs_otherwise(content, write_folder):
    crowded, other, _ = read(write_folder(content)).images
    assert crowded.area.tolist() == [900, 600, 1000]
    assert other.area.tolist() == [40]


def test_coco_keeps_its_category_ids_and_has_91_classes(content, write_folder):
    content["categories"] = [{"id": i, "name": f"class {i}"} for i in sorted(COCO_IDS)]
    for annotation in content["annotations"]:
        annotation["category_id"] = 90
    content["annotations"][0]["bbox"] = [1, 2, 3, 0]
    index = read(write_folder(content))
    assert index.num_classes == 91
    assert len(index.class_names) == 80
    assert index.class_names[90] == "class 90"
    # The box of height 0 is left out, as the official parser does on COCO's own two.
    assert index.images[0].labels.tolist() == [90, 90]


def test_one_category_more_or_less_than_coco_counts_from_one(content, write_folder):
    content["categories"] = [{"id": i, "name": str(i)} for i in sorted(COCO_IDS - {90})]
    assert read(write_folder(content)).num_classes == 80


def test_fingerprint_ignores_path_and_formatting(content, write_folder):
    one = fingerprint(read(write_folder(content, "one")))
    content["annotations"].reverse()
    content["images"].reverse()
    content["annotations"][0]["bbox"] = [float(v) for v in content["annotations"][0]["bbox"]]
    assert fingerprint(read(write_folder(content, "two", indent=3, sort_keys=True))) == one


@pytest.mark.parametrize("change", ["box", "crowd", "category", "name", "picture"])
def test_fingerprint_sees_every_change_of_content(change, content, write_folder):
    before = fingerprint(read(write_folder(content, "before")))
    annotation = content["annotations"][0]
    match change:
        case "box":
            annotation["bbox"][2] += 0.5
        case "crowd":
            annotation["iscrowd"] = 1
        case "category":
            annotation["category_id"] = 4
        case "name":
            content["categories"][0]["name"] = "lynx"
    root = write_folder(content, "after")
    if change == "picture":
        with (root / "images" / "a.png").open("ab") as file:
            file.write(b"more")
    assert fingerprint(read(root)) != before


def test_both_layouts_are_found(content, write_folder):
    root = write_folder(content)
    assert find_split(root, "val")[0].name == "instances_val.json"
    (root / "annotations" / "instances_val.json").rename(
        root / "annotations" / "instances_val2017.json"
    )
    (root / "images").rename(root / "val2017")
    assert find_split(root, "val") == (
        root / "annotations" / "instances_val2017.json",
        root / "val2017",
        "",
    )


def test_missing_split_lists_what_was_looked_for_and_what_is_there(content, write_folder):
    root = write_folder(content)
    (root / "annotations" / "instances_val.json").unlink()
    with pytest.raises(DataError) as caught:
        find_split(root, "val")
    message = str(caught.value)
    for part in (
        str(root),
        "'val'",
        "annotations/instances_{val,valid,validation}.json",
        "{val,valid,validation}/_annotations.coco.json",
        "annotations/instances_default.json",
        "annotations/instances_train.json",
        "rename or move",
    ):
        assert part in message


def test_missing_folder_is_named():
    with pytest.raises(DataError, match="/nowhere: no such folder; set the data's root"):
        find_split(Path("/nowhere"), "train")


def test_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.json: no such annotation file; check"):
        read_coco(tmp_path / "x.json", tmp_path)


@pytest.mark.parametrize("kept", [0, 30, 150, 151, 400])
def test_cut_off_file_says_where_and_how_long_it_is(kept, content, write_folder):
    root = write_folder(content, indent=1)
    file = root / "annotations" / "instances_train.json"
    file.write_bytes(file.read_bytes()[:kept])
    message = complaint(root)
    assert str(file) in message
    assert "download it again" in message
    assert re.search(rf"line \d+, column \d+ \(byte \d+\).* cut off, {kept} bytes", message)


def test_broken_json_in_the_middle_is_not_called_cut_off(content, write_folder):
    root = write_folder(content)
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace('"images":', '"images"', 1))
    message = complaint(root)
    assert "line 1, column 11 (byte 10)" in message
    assert "correct it there" in message
    assert "cut off" not in message


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_top_level_key_is_named(key, content, write_folder):
    root = write_folder(content)
    del content[key]
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    message = complaint(root)
    assert "instances_train.json" in message
    assert repr(key) in message
    assert "export" in message


@pytest.mark.parametrize(
    ("list_name", "key"),
    [("images", "height"), ("annotations", "bbox"), ("categories", "name")],
)
def test_missing_key_of_an_entry_is_named(list_name, key, content, write_folder):
    root = write_folder(content)
    entry = content[list_name][1]
    del entry[key]
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    message = complaint(root)
    assert f"{entry['id']} has no {key!r}" in message
    assert "add the key" in message


def test_a_byte_order_mark_is_passed_over(content, write_folder):
    root = write_folder(content)
    before = fingerprint(read(root))
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert fingerprint(read(root)) == before


def test_categories_of_one_name_are_told_apart_by_their_ids(content, write_folder):
    first, second = content["categories"][:2]
    second["name"] = first["name"]
    index = read(write_folder(content))
    for category in (first, second):
        told = f"{first['name']} ({category['id']})"
        assert index.categories[category["id"]] == told
    assert len(set(index.class_names.values())) == len(content["categories"])


@pytest.mark.parametrize(
    ("value", "is_crowd"), [(0, 0), (1, 1), (1.0, 1), (True, 1), (False, 0), (None, 0)]
)
def test_a_crowd_is_one_or_true(value, is_crowd, content, write_folder):
    content["annotations"][0]["iscrowd"] = value
    index = read(write_folder(content))
    assert index.images[0].iscrowd.sum() == 1 + is_crowd


@pytest.mark.parametrize("value", ["0", "false", [0], 2])
def test_a_crowd_that_is_neither_yes_nor_no_is_refused(value, content, write_folder):
    content["annotations"][0]["iscrowd"] = value
    message = complaint(write_folder(content))
    for part in ("instances_train.json: annotation 2 has iscrowd", repr(value), "write 1 for"):
        assert part in message


def test_whole_floats_are_integers(content, write_folder):
    before = read(write_folder(content, "before"))
    for name, keys in (
        ("images", ("id", "height", "width")),
        ("annotations", ("id", "image_id", "category_id")),
        ("categories", ("id",)),
    ):
        for entry in content[name]:
            entry |= {key: float(entry[key]) for key in keys}
    root = write_folder(content | {"images": []}, "after")
    shutil.copytree(before.image_dir, root / "images", dirs_exist_ok=True)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    after = read(root)
    assert fingerprint(after) == fingerprint(before)
    assert [(type(i.id), type(i.height)) for i in after.images] == [(int, int)] * 3


@pytest.mark.parametrize("value", [40.5, "40", True, None, float("nan")])
def test_a_size_that_is_no_integer_is_named(value, content, write_folder):
    root = write_folder(content)
    content["images"][0]["height"] = value
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    assert f"image 7 has height {value!r}; it must be an integer" in complaint(root)


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_annotation_of_something_unknown_is_named(key, content, write_folder):
    content["annotations"][1][key] = 77
    message = complaint(write_folder(content))
    assert "instances_train.json: annotation 1 " in message
    assert f"{key} 77" in message
    assert "remove the annotation" in message


@pytest.mark.parametrize("box", [[1, 2, 0, 5], [1, 2, 5, -1], [1, 2, float("nan"), 4]])
def test_box_without_area_is_named(box, content, write_folder):
    content["annotations"][0]["bbox"] = box
    message = complaint(write_folder(content))
    assert "instances_train.json: annotation 2 on a.png" in message
    assert json.dumps(box).replace("NaN", "nan") in message
    assert "without area" in message
    assert "remove" in message


def test_malformed_box_is_named(content, write_folder):
    content["annotations"][0]["bbox"] = [1, 2, 3]
    message = complaint(write_folder(content))
    assert "annotation 2 on a.png" in message
    assert "four numbers" in message


def test_repeated_image_id_is_named(content, write_folder):
    content["images"][0]["id"] = 3
    assert "'images' has id 3 twice" in complaint(write_folder(content))


def test_missing_pictures_are_counted_and_the_first_three_named(content, write_folder):
    root = write_folder(content)
    content["images"] += [
        {"id": 100 + i, "file_name": f"gone{i}.png", "height": 4, "width": 4} for i in range(5)
    ]
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    message = complaint(root)
    assert "5 of 8 pictures are missing" in message
    assert "gone0.png, gone1.png, gone2.png, …" in message
    assert "gone3" not in message
    assert str(root / "images") in message
    assert "add the files or remove" in message
