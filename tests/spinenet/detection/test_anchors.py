import numpy as np
import pytest
import torch
from official_weights import load

from spinenet.detection.anchors import AnchorConfig, anchor_boxes, decode, encode
from spinenet.detection.roi_codes import clip, decode_rois, encode_rois

OPERATIONS = load("operations")
LEVELS = (3, 4, 5, 6, 7)


def flipped(rows: np.ndarray) -> torch.Tensor:
    """Official (..., y1, x1, y2, x2) → (..., x1, y1, x2, y2)."""
    return torch.from_numpy(np.ascontiguousarray(rows.reshape(-1, 4)[:, [1, 0, 3, 2]]))


def level_grid(size: int, side: tuple[int, int], level: int) -> torch.Tensor:
    """Our anchors of one level as the official code has them: (rows, columns, 36), y before x."""
    boxes = anchor_boxes(AnchorConfig(size=size), "tf2", side, [level])
    return boxes[:, [1, 0, 3, 2]].view(side[0] >> level, side[1] >> level, 36)


@pytest.mark.parametrize(
    ("size", "side"), [(3, (128, 128)), (4, (128, 128)), (3, (128, 256)), (4, (128, 256))]
)
def test_anchors_are_the_model_gardens(size: int, side: tuple[int, int]):
    names = [f"anchors_s{size}_{side[0]}x{side[1]}_l{level}" for level in LEVELS]
    expected = torch.cat([flipped(OPERATIONS[name]) for name in names])
    ours = anchor_boxes(AnchorConfig(size=size), "tf2", side, LEVELS)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("level", LEVELS)
def test_anchors_at_640_pixels_agree_at_chosen_cells_and_in_their_statistics(size: int, level: int):
    ours = level_grid(size, (640, 640), level)
    name = f"anchors_s{size}_640x640_l{level}"
    cells = [0, 1, -1]
    chosen = ours[cells][:, cells]
    torch.testing.assert_close(
        chosen, torch.from_numpy(OPERATIONS[f"{name}_rows"]), rtol=1e-6, atol=1e-4
    )
    wide = ours.double()
    summary = [wide.mean(), wide.std(correction=0), wide.min(), wide.max(), wide.norm()]
    np.testing.assert_allclose(summary, OPERATIONS[f"{name}_summary"], rtol=1e-6)


def test_tensorflow_tpus_aspects_are_the_model_gardens_in_another_order():
    side = (128, 128)
    tf1, tf2 = (
        anchor_boxes(AnchorConfig(), flavor, side, LEVELS).view(-1, 3, 3, 4)
        for flavor in ("tf1", "tf2")  # (cells, scales, aspects, 4)
    )
    assert torch.equal(tf1, tf2[:, :, [1, 2, 0]])
    width, height = (tf1[0, 0, :, i + 2] - tf1[0, 0, :, i] for i in (0, 1))
    torch.testing.assert_close(width / height, torch.tensor([1.0, 2.0, 0.5]))


def test_anchors_of_any_picture_sit_at_the_centres_of_their_cells():
    boxes = anchor_boxes(AnchorConfig(scales=1), "tf1", (97, 130), [5])
    assert boxes.shape == (4 * 5 * 3, 4)
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).view(4, 5, 3, 2)
    torch.testing.assert_close(centres[2, 3], torch.tensor([[112.0, 80.0]]).expand(3, 2))


def test_codes_are_the_official_ones():
    boxes, anchors = flipped(OPERATIONS["codec_boxes"]), flipped(OPERATIONS["codec_anchors"])
    ours = encode(boxes, anchors)
    for coder in ("coder", "boxops"):
        expected = torch.from_numpy(OPERATIONS[f"codec_encode_{coder}_now"])
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_decoded_boxes_are_the_official_ones_however_large_the_code():
    codes, anchors = (
        torch.from_numpy(OPERATIONS["codec_codes"]),
        flipped(OPERATIONS["codec_anchors"]),
    )
    expected = flipped(OPERATIONS["codec_decode_boxops_now"])
    torch.testing.assert_close(decode(codes, anchors), expected, rtol=1e-5, atol=1e-3)
    huge = decode(torch.full((1, 4), 50.0), torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    torch.testing.assert_close(huge[0, 2:] - huge[0, :2], torch.tensor([1000.0, 1000.0]))


def test_scaled_codes_and_clipped_boxes_are_the_official_ones():
    boxes, anchors = flipped(OPERATIONS["codec_boxes"]), flipped(OPERATIONS["codec_anchors"])
    ours = encode_rois(boxes, anchors, "tf2")
    for coder in ("coder", "boxops"):
        expected = torch.from_numpy(OPERATIONS[f"codec_encode_{coder}_w"])
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    decoded = decode_rois(torch.from_numpy(OPERATIONS["codec_codes"]), anchors, "tf2")
    expected = flipped(OPERATIONS["codec_decode_boxops_w"])
    torch.testing.assert_close(decoded, expected, rtol=1e-5, atol=1e-3)
    inside = clip(boxes[None], torch.tensor([[100, 120]]), "tf2")[0]
    assert torch.equal(inside, flipped(OPERATIONS["codec_clip_100x120"]))


def test_decoding_undoes_encoding():
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 50, 2, 2, generator=generator)
    boxes, anchors = torch.cat([corner, corner + size + 0.1], dim=-1).mul(100).unbind(1)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, rtol=0, atol=1e-3)


def test_code_of_a_box_without_area_is_finite():
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert encode(point, torch.tensor([[0.0, 0.0, 8.0, 8.0]])).isfinite().all()
