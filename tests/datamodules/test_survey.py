"""What a data set holds is counted as a reader would count it by hand."""

import json

import numpy as np
import pytest

from datamodules import CocoFolderConfig, DataError, DetectionDataModule, TransformConfig, open_data
from datamodules.image_folder import ImageFolderConfig
from datamodules.survey import SplitCount, area_shares, placed_boxes, survey


def opened(root):
    return open_data(CocoFolderConfig(root=str(root)))


def test_objects_are_counted_without_crowds(content, write_folder):
    found = survey(opened(write_folder(content)))
    assert found.splits == {"train": SplitCount(3, 1, 3), "val": SplitCount(3, 1, 3)}
    assert found.per_class == {"dog": 2, "cat": 1}


def test_shares_are_those_of_boxes_in_their_pictures(content, write_folder):
    source = opened(write_folder(content))
    shares = [900 / 4800, 600 / 4800, 64 / 2500]  # by picture 3 of 60 x 80, then 5 of 50 x 50
    np.testing.assert_allclose(area_shares(source.index("train")), shares)
    found = survey(source)
    assert found.median_share == pytest.approx(600 / 4800)
    assert found.tiny_share == 0
    content["annotations"][3]["bbox"] = [5, 5, 4, 6]  # 24 of 2,500 pixels
    assert survey(opened(write_folder(content, "small"))).tiny_share == pytest.approx(1 / 3)


def test_boxes_are_placed_as_for_evaluation(content, write_folder):
    boxes = placed_boxes(opened(write_folder(content)).index("train"), 160)
    np.testing.assert_allclose(boxes[:2], [[80, 40, 140, 100], [20, 10, 60, 70]])
    np.testing.assert_allclose(boxes[2], np.array([5, 5, 13, 13]) * 160 / 50)


def test_a_set_without_objects_has_no_sizes(content, write_folder):
    found = survey(opened(write_folder(content | {"annotations": []})))
    assert (found.median_share, found.tiny_share) == (None, None)
    assert found.splits["train"] == SplitCount(3, 3, 0)


def test_labelled_pictures_are_counted_by_class(tmp_path):
    for place in ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "val/dog/3.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"pixels")
    found = survey(open_data(ImageFolderConfig(root=str(tmp_path))))
    assert found.per_class == {"cat": 2, "dog": 1}
    assert found.splits == {"train": SplitCount(3, 0, 3), "val": SplitCount(1, 0, 1)}
    assert found.median_share is None


def test_classes_that_training_never_shows_are_refused(content, write_folder):
    root = write_folder(content)
    few = content["annotations"][1:]  # without the only cat
    (root / "annotations" / "instances_train.json").write_text(
        json.dumps(content | {"annotations": few})
    )
    message = (
        r"instances_val\.json: 1 of 2 classes have objects here and none in training "
        r"\(.*instances_train\.json\): 'cat'; annotate some in training, or remove"
    )
    module = DetectionDataModule(
        source=CocoFolderConfig(root=str(root)),
        transform=TransformConfig(side=64),
        seed=0,
        batch_size=1,
    )
    for refused in (lambda: survey(opened(root)), lambda: module.setup("fit")):
        with pytest.raises(DataError, match=message):
            refused()
    module.setup("validate")  # scoring weights from elsewhere needs no training pictures
