"""Predictions are the network's own detections in the picture's pixels, drawn where they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import read_image

from datamodules.masks import encode, rle
from datamodules.transforms import place, place_image
from experiments.errors import UserError
from experiments.predict import READABLE, Found, draw, predict, read_upright
from experiments.weights import Weights, read_weights
from spinenet.backbone import SpineNetConfig
from spinenet.detection.instance_heads import BoxHeadConfig, MaskHeadConfig
from spinenet.detection.mask_rcnn import MaskRCNNConfig, build_mask_rcnn
from spinenet.detection.postprocess import PostprocessConfig
from spinenet.detection.rpn import RPNConfig


def picture(path: Path, size: tuple[int, int] = (80, 60), mode: str = "RGB") -> Path:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(2))
    Image.fromarray(noise.byte().numpy()).convert(mode).save(path)
    return path


def test_boxes_are_the_networks_in_the_pictures_own_pixels(weights_file: Path, tmp_path: Path):
    file = picture(tmp_path / "wide.png", (160, 100))
    weights = read_weights(weights_file)
    ((path, found),) = predict(weights, [file], tmp_path / "out", threshold=0.2)
    assert path == file
    placement = place((100, 160), 64)
    images = place_image(read_upright(file), placement)[None]
    boxes, scores, labels = weights.network().detect(images, torch.tensor([placement.valid]))
    expected = int((scores[0] > 0.2).sum())
    assert len(found) == expected > 0
    for one, box, score, label in zip(found, boxes[0], scores[0], labels[0], strict=False):
        x, y, w, h = one.bbox
        # 64 network pixels show 160 of the picture's; folded norms round otherwise.
        assert [x, y, x + w, y + h] == pytest.approx([v * 2.5 for v in box.tolist()], abs=1e-2)
        assert one.score == pytest.approx(score.item(), rel=1e-4)
        assert (one.category_id, one.name) == [(3, "red"), (7, "orange")][int(label) - 1]
        assert 0 <= x <= x + w <= 160.001
        assert 0 <= y <= y + h <= 100.001


def test_the_command_writes_a_drawing_per_picture_and_one_json(
    run, weights_file: Path, tmp_path: Path
):
    files = [
        picture(tmp_path / "a.png"),
        picture(tmp_path / "grey.jpg", mode="L"),
        picture(tmp_path / "palette.gif", mode="P"),
    ]
    out_folder = tmp_path / "found"
    code, out, _ = run("predict", weights_file, *files, "-o", out_folder, "--threshold", "0.2")
    assert code == 0
    assert "a.png" in out
    rows = json.loads((out_folder / "detections.json").read_text())
    assert [row["file"] for row in rows] == [str(file) for file in files]
    for row in rows:
        drawing = read_image(str(out_folder / row["drawing"]))
        assert (row["width"], row["height"]) == (80, 60)
        assert drawing.shape == (3, 60 * 8, 80 * 8)  # enlarged to be read
        assert all(one["score"] > 0.2 for one in row["detections"])
    assert sum(len(row["detections"]) for row in rows) > 0


def test_masks_are_written_and_drawn_where_the_network_gives_them(
    weights_file: Path, tmp_path: Path, monkeypatch
):
    tiny = {"convs": 1, "filters": 8}
    config = MaskRCNNConfig(
        backbone=SpineNetConfig(width=0.0625, endpoint_filters=8),
        rpn=RPNConfig(convs=1, filters=8),
        box=BoxHeadConfig(**tiny, fc=8),
        mask=MaskHeadConfig(**tiny),
        postprocess=PostprocessConfig(score_threshold=0.0),
    )
    torch.manual_seed(0)
    model = build_mask_rcnn(config, num_classes=3).eval()
    monkeypatch.setattr(Weights, "network", lambda self: model)
    weights, file = read_weights(weights_file), picture(tmp_path / "a.png")
    ((_, found),) = predict(weights, [file], tmp_path / "out", threshold=0.0)
    assert found
    assert all(one.segmentation["size"] == [60, 80] for one in found)
    (row,) = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert row["detections"] == [one.row() for one in found]
    full = np.zeros((60, 80), np.uint8)
    full[10:30, 20:50] = 1
    one = Found(3, "red", [20.0, 10.0, 30.0, 20.0], 0.9, rle(encode(full), (60, 80)))
    pixels = read_upright(file)
    changed = (draw(pixels, [one]) != draw(pixels, [])).any(0)
    inside = changed[8 * 10 : 8 * 30, 8 * 20 : 8 * 50]
    assert inside.float().mean() > 0.95
    assert changed.sum() - inside.sum() < 0.1 * inside.sum()


def test_a_higher_threshold_leaves_the_better_ones(weights_file: Path, tmp_path: Path):
    file, weights = picture(tmp_path / "a.png"), read_weights(weights_file)
    ((_, low),) = predict(weights, [file], tmp_path / "out", threshold=0.1)
    middle = low[len(low) // 2].score
    ((_, high),) = predict(weights, [file], tmp_path / "out", threshold=middle)
    assert 0 < len(high) < len(low)
    assert high == [one for one in low if one.score > middle]


def test_a_turned_photograph_is_taken_upright(weights_file: Path, tmp_path: Path):
    upright = Image.open(picture(tmp_path / "upright.png", (80, 60)))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(
        read_upright(tmp_path / "turned.png"), read_upright(tmp_path / "upright.png")
    )


def test_a_drawing_changes_pixels_only_around_its_box():
    pixels = torch.full((3, 700, 900), 200, dtype=torch.uint8)
    found = [Found(1, "red", [100.0, 200.0, 300.0, 150.0], 0.9)]
    changed = (draw(pixels, found) != pixels).any(0)
    rows, columns = changed.nonzero().unbind(1)
    assert rows.min() == pytest.approx(200, abs=4)
    assert rows.max() == pytest.approx(350, abs=4)
    assert (columns.min(), columns.max()) == (pytest.approx(100, abs=4), pytest.approx(400, abs=4))
    assert torch.equal(draw(pixels, []), pixels)
    assert max(draw(pixels[:, :60, :80], []).shape) == READABLE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.png", None, "gone.png: no such file"),
        ("notes.png", b"not a picture", "notes.png: damaged or no picture"),
        ("folder", "folder", "folder: a folder; give pictures"),
    ],
)
def test_what_is_no_picture_is_named(run, weights_file: Path, tmp_path, name, content, message):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    good = picture(tmp_path / "good.png")
    code, _, err = run("predict", weights_file, good, tmp_path / name, "-o", tmp_path / "out")
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_cut_off_picture_is_named(weights_file: Path, tmp_path: Path):
    file = picture(tmp_path / "cut.jpg")
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(UserError, match=r"cut\.jpg: damaged or no picture"):
        list(predict(read_weights(weights_file), [file], tmp_path / "out", 0.3))


def test_a_picture_of_16_bits_is_refused_rather_than_clipped(tmp_path: Path):
    file = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(file)
    with pytest.raises(UserError, match=r"deep\.png: more than 8 bits per channel"):
        read_upright(file)


def test_two_pictures_of_one_name_do_not_overwrite_each_other(weights_file: Path, tmp_path: Path):
    files = [picture(tmp_path / "a.png"), picture(tmp_path / "a.jpg")]
    with pytest.raises(UserError, match="another picture would be drawn to"):
        list(predict(read_weights(weights_file), files, tmp_path / "out", 0.3))
    assert not (tmp_path / "out").exists()
