import pytest
import torch
from torch import nn

from spinenet.detection.head import HeadConfig, RetinaNetHead
from spinenet.layers import LayerConfig


def head(convs: int = 2) -> RetinaNetHead:
    torch.manual_seed(0)
    config = HeadConfig(convs=convs, filters=6)
    channels = {3: 4, 4: 4}
    return RetinaNetHead(config, LayerConfig(), channels=channels, num_classes=5, anchors=9)


def test_outputs_are_rows_of_anchors_level_by_level_cell_by_cell():
    module = head().eval()
    nn.init.normal_(module.classes.predict.weight)
    nn.init.normal_(module.boxes.predict.weight)
    features = {3: torch.randn(2, 4, 3, 5), 4: torch.randn(2, 4, 2, 3)}
    logits, codes = module(features)
    assert logits.shape == (2, 9 * (15 + 6), 5)
    assert codes.shape == (2, 9 * (15 + 6), 4)
    x = features[4]
    for conv, norm in zip(module.boxes.convs, module.boxes.norms["4"], strict=True):
        x = norm(conv(x)).relu()
    cell = module.boxes.predict(x)[1, :, 1, 2].view(9, 4)  # row 1, column 2 of the second level
    torch.testing.assert_close(codes[1, 9 * (15 + 5) :], cell)


def test_convolutions_are_shared_over_levels_and_norms_are_not():
    module = head(convs=3)
    assert len(module.classes.convs) == 3
    norms = {level: list(row) for level, row in module.classes.norms.items()}
    assert set(norms) == {"3", "4"}
    assert len({id(norm) for row in norms.values() for norm in row}) == 6


def test_every_class_starts_at_the_prior_of_one_percent():
    logits, codes = head().eval()({3: torch.randn(1, 4, 4, 4), 4: torch.randn(1, 4, 2, 2)})
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01), rtol=0.01, atol=0)
    assert codes.abs().max() < 0.01


@pytest.mark.parametrize(("part", "std"), [("convs.0", 0.01), ("predict", 1e-5)])
def test_weights_start_as_the_official_normals(part: str, std: float):
    weight = head().classes.get_submodule(part).weight
    assert weight.std().item() == pytest.approx(std, rel=0.15)


def test_levels_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="unpack"):
        RetinaNetHead(HeadConfig(), LayerConfig(), channels={3: 4, 4: 8}, num_classes=2, anchors=9)
