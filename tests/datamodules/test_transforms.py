from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import DataError, TransformConfig
from datamodules.transforms import (
    MEAN_RGB,
    STD_RGB,
    crop_mask,
    draw_placement,
    has_area,
    normalise,
    place,
    place_boxes,
    place_image,
    place_pixels,
)

REFERENCE = Path(__file__).parents[1] / "reference" / "preprocessing.npz"


@pytest.mark.parametrize("case", ["60x80_128", "300x200_128", "427x640_256"])
def test_evaluation_equals_the_official_preprocessing(case):
    reference = np.load(REFERENCE)
    (height, width), side = map(int, case.split("_")[0].split("x")), int(case.split("_")[1])
    pixels = np.random.RandomState(height).randint(0, 256, (height, width, 3)).astype(np.uint8)
    placement = place((height, width), side)
    image = place_image(torch.from_numpy(pixels).permute(2, 0, 1), placement)
    official = torch.from_numpy(reference[f"{case}_image"]).permute(2, 0, 1)
    # Either side rounds its float32 weights its own way, up to 6e-5 from the exact value.
    torch.testing.assert_close(image[:, ::3, ::3], official, atol=1e-4, rtol=0)

    x, y = width, height
    boxes = torch.tensor([[0.2 * x, 0.1 * y, 0.9 * x, 0.7 * y], [0.0, 0.0, x, y]])
    official = torch.from_numpy(reference[f"{case}_boxes"])[:, [1, 0, 3, 2]]
    torch.testing.assert_close(place_boxes(boxes, placement), official, atol=1e-4, rtol=0)
    assert placement.scale == tuple(reference[f"{case}_info"][2].tolist())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("jitter", "crop"), [(1.0, (0.0, 0.0)), (0.7, (0.0, 0.0)), (1.9, (0.3, 0.8))]
)
def test_training_in_eight_bits_is_evaluation_rounded(flip, jitter, crop):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 90, 130), dtype=np.uint8))
    placement = place((90, 130), 128, jitter=jitter, crop=crop, flip=flip)
    exact = place_pixels(image.float(), placement)
    rounded = place_pixels(image, placement)
    assert rounded.dtype == torch.uint8
    assert (rounded - exact).abs().max() <= 1
    assert (rounded - exact).abs().mean() < 0.35


def test_a_picture_that_fits_is_the_same_in_either_arithmetic():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 64, 48), dtype=np.uint8))
    placement = place((64, 48), 64)
    valid = torch.tensor([placement.valid])
    pixels = place_pixels(image, placement)
    assert torch.equal(normalise(pixels[None], valid)[0], place_image(image, placement))
    by_hand = torch.zeros(3, 64, 64)
    by_hand[:, :, :48] = (image.float() - MEAN_RGB) / STD_RGB
    assert torch.equal(place_image(image, placement), by_hand)


def test_normalising_leaves_the_batch_as_it_was():
    for kind in (torch.uint8, torch.float32):
        batch = torch.full((1, 3, 4, 4), 7).to(kind)
        normalise(batch, torch.tensor([[4, 4]]))
        assert (batch == 7).all()


def test_padding_is_the_mean_colour_and_valid_bounds_the_picture():
    placement = place((30, 60), 64)
    image = place_image(torch.full((3, 30, 60), 255, dtype=torch.uint8), placement)
    assert placement.valid == (32, 64)
    assert (image[:, 32:] == 0).all()
    white = ((255 - MEAN_RGB) / STD_RGB).expand(3, 32, 64)
    torch.testing.assert_close(image[:, :32], white)


@pytest.mark.parametrize("number", range(40))
def test_boxes_stay_on_their_objects(number):
    """A white rectangle on black; whatever the draw, its box bounds it to a pixel."""
    rng = np.random.default_rng(number)
    height, width = (int(v) for v in rng.integers(40, 160, 2))
    x1, y1 = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
    x2, y2 = int(rng.integers(x1 + 12, width)), int(rng.integers(y1 + 12, height))
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[:, y1:y2, x1:x2] = 255
    config = TransformConfig(side=96, scale_jitter=(0.5, 2.0))
    placement = draw_placement((height, width), config, rng)
    image = place_image(pixels, placement)
    boxes = place_boxes(torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32), placement)

    half = ((127.5 - MEAN_RGB) / STD_RGB)[0]
    rows, columns = placement.valid
    white = image[0, :rows, :columns] > half
    if not has_area(boxes)[0]:
        assert not white.any()
        return
    ys, xs = white.any(dim=1).nonzero()[:, 0], white.any(dim=0).nonzero()[:, 0]
    if len(xs) == 0:  # the crop left a sliver of less than a pixel
        assert (boxes[0, 2:] - boxes[0, :2]).min() <= 1
        return
    seen = torch.tensor([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=torch.float32)
    assert (seen - boxes[0]).abs().max() <= 1


def test_crop_covers_both_ends_of_the_excess():
    near = place((100, 100), 64, jitter=2.0, crop=(0.0, 0.0))
    far = place((100, 100), 64, jitter=2.0, crop=(0.999, 0.999))
    assert near.resized == (128, 128)
    assert near.offset == (0, 0)
    assert far.offset == (63, 63)
    assert far.valid == (64, 64)


def test_a_box_outside_the_crop_has_no_area():
    placement = place((100, 100), 50, jitter=2.0)
    boxes = place_boxes(torch.tensor([[60.0, 60, 90, 90], [40, 40, 60, 60]]), placement)
    assert has_area(boxes).tolist() == [False, True]
    assert boxes[1].tolist() == [40, 40, 50, 50]


def test_a_very_thin_picture_keeps_a_pixel():
    assert place((1, 2000), 64).resized == (1, 64)


def disc(height, width, x, y, radius):
    rows, columns = torch.meshgrid(
        torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij"
    )
    inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    return inside.to(torch.uint8)


def test_a_mask_in_its_own_box_at_its_own_size_is_itself():
    mask = disc(40, 60, 30, 20, 10)
    cropped = crop_mask(mask, torch.tensor([20.0, 10, 40, 30]), place((40, 60), 60), 20)
    assert cropped.dtype == torch.uint8
    assert torch.equal(cropped, 255 * mask[10:30, 20:40])


def test_cells_are_read_between_pixels_and_not_rounded_to_either():
    mask = torch.tensor([[0, 1], [0, 1]], dtype=torch.uint8)
    cropped = crop_mask(mask, torch.tensor([0.0, 0, 2, 2]), place((2, 2), 2), 4)
    assert cropped.tolist() == [[0, 64, 191, 255]] * 4


def test_a_mask_is_not_darkened_at_the_pictures_edge():
    placement = place((10, 10), 80)
    whole = torch.ones(10, 10, dtype=torch.uint8)
    assert (crop_mask(whole, torch.tensor([0.0, 0, 80, 80]), placement, 112) == 255).all()


@pytest.mark.parametrize("number", range(40))
def test_masks_stay_on_their_objects(number):
    """A white disc on black; whatever the draw, the cells show what the placed picture shows."""
    rng = np.random.default_rng(number)
    height, width = (int(v) for v in rng.integers(60, 160, 2))
    x, y, radius = rng.uniform(20, width - 20), rng.uniform(20, height - 20), rng.uniform(15, 40)
    mask = disc(height, width, x, y, radius)
    mask[:, int(x) :] = 0  # a half disc, so that a mirrored one would show
    config = TransformConfig(side=96, scale_jitter=(0.5, 2.0))
    placement = draw_placement((height, width), config, rng)
    rows, columns = mask.nonzero().T
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    box = place_boxes(torch.tensor([corners], dtype=torch.float32), placement)[0]
    if (box[2:] - box[:2]).min() < 8:  # little or nothing is left of the disc
        return
    cells = crop_mask(mask, box, placement, 112) > 127
    placed = place_image(255 * mask.expand(3, -1, -1), placement) * STD_RGB + MEAN_RGB
    centres = (torch.arange(112) + 0.5) / 112
    columns = (box[0] + centres * (box[2] - box[0])).long()
    rows = (box[1] + centres * (box[3] - box[1])).long()
    shown = placed[0][rows][:, columns] > 127
    assert (cells == shown).float().mean() > 0.9
    assert (cells & shown).sum() / (cells | shown).sum() > 0.8


@pytest.mark.parametrize("options", [{"side": 0}, {"scale_jitter": (1.2, 0.8)}])
def test_impossible_options_are_refused(options):
    with pytest.raises(DataError, match=f"{next(iter(options))} is .*; give"):
        TransformConfig(**options)
