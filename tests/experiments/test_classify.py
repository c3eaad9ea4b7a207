"""A picture's classes are the network's own on the square that evaluation cuts out."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.io import read_image

from datamodules.crops import centre_crop, crop_image
from experiments.classify import LISTED, Guess, classify, draw
from experiments.predict import READABLE, read_upright
from experiments.weights import read_weights


def picture(path: Path, size: tuple[int, int] = (90, 60)) -> Path:
    noise = torch.rand(size[1], size[0], 3, generator=torch.Generator().manual_seed(3))
    Image.fromarray((noise * 255).byte().numpy()).save(path)
    return path


def test_classes_are_the_networks_best_with_their_probabilities(
    classifier_file: Path, tmp_path: Path
):
    file, weights = picture(tmp_path / "wide.png"), read_weights(classifier_file)
    ((path, found),) = classify(weights, [file], tmp_path / "out")
    assert path == file
    side = weights.recipe.data.transform.side
    cut = centre_crop((60, 90), weights.recipe.data.transform.centre)
    with torch.no_grad():
        logits = weights.network()(crop_image(read_upright(file), cut, side)[None])[0]
    probabilities = logits.softmax(0)
    assert len(probabilities) == 11  # ten digits and the background, which nothing is named after
    best = probabilities[1:].topk(LISTED)
    assert [one.category_id for one in found] == (best.indices + 1).tolist()
    assert [one.probability for one in found] == pytest.approx(best.values.tolist(), abs=1e-6)
    assert [one.name for one in found] == [weights.labels[int(i) + 1].name for i in best.indices]
    assert found[0].probability - found[-1].probability > 0.01  # not all one number


def test_the_command_writes_a_drawing_per_picture_and_the_classes_twice(
    run, classifier_file: Path, tmp_path: Path
):
    files = [picture(tmp_path / "a.png"), picture(tmp_path / "b, c.png", (40, 80))]
    folder = tmp_path / "found"
    code, out, _ = run("predict", classifier_file, *files, "-o", folder, "--json")
    assert code == 0
    printed = json.loads(out)
    rows = json.loads((folder / "classes.json").read_text())
    assert [row["file"] for row in rows] == list(printed) == [str(file) for file in files]
    assert [row["classes"] for row in rows] == list(printed.values())
    with open(folder / "classes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["file"], line["rank"]) for line in lines] == [
        (str(file), str(rank)) for file in files for rank in range(1, LISTED + 1)
    ]
    listed = [one for row in rows for one in row["classes"]]
    assert [float(line["probability"]) for line in lines] == [one["probability"] for one in listed]
    assert [line["name"] for line in lines] == [one["name"] for one in listed]
    for row in rows:
        assert read_image(str(folder / row["drawing"])).shape[0] == 3


def test_a_threshold_leaves_the_surer_classes(run, classifier_file: Path, tmp_path: Path):
    file, weights = picture(tmp_path / "a.png"), read_weights(classifier_file)
    ((_, all_),) = classify(weights, [file], tmp_path / "out")
    least = all_[1].probability
    ((_, some),) = classify(weights, [file], tmp_path / "out", least)
    assert some == all_[:2]
    code, out, _ = run("predict", classifier_file, file, "-o", tmp_path / "out", "--threshold", "1")
    assert code == 0
    assert "a.png" in out
    assert json.loads((tmp_path / "out" / "classes.json").read_text())[0]["classes"] == []


def test_a_drawing_has_the_picture_its_frame_and_bars_as_long_as_the_probabilities():
    pixels = torch.full((3, 300, 700), 120, dtype=torch.uint8)
    guesses = [Guess(1, "red", 0.75), Guess(2, "a very long name " * 20, 0.25)]
    crop = centre_crop((300, 700), 0.5)
    plain, drawn = (draw(pixels, given, crop) for given in ([], guesses))
    assert plain.size == (700, 300)
    assert drawn.width == 700
    assert drawn.crop((0, 0, 700, 300)).tobytes() == plain.tobytes()
    changed = (torch.tensor(list(plain.getdata())).view(300, 700, 3) != 120).any(-1).nonzero()
    assert changed.amin(0).tolist() == [75, 275]
    assert changed.amax(0).tolist() == [224, 424]
    line = (drawn.height - 300) // 2
    for k, end in enumerate([525, 175]):
        row = 300 + line * k  # its upper edge, above the letters
        colours = [drawn.getpixel((x, row)) for x in (end - 2, end + 2)]
        assert colours[0] != (255, 255, 255) == colours[1]
    small = draw(pixels[:, :30, :40], [], centre_crop((30, 40), 1.0))
    assert max(small.size) == READABLE
