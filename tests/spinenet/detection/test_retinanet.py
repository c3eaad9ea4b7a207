from collections.abc import Callable

import numpy as np
import pytest
import torch
from official_names import tf1_keys, tf2_keys
from official_weights import fill_network, load, picture, variables

from spinenet.backbone import SpineNetConfig
from spinenet.detection.anchors import AnchorConfig
from spinenet.detection.head import HeadConfig
from spinenet.detection.retinanet import RetinaNet, RetinaNetConfig, build_retinanet
from spinenet.layers import LayerConfig
from spinenet.resnet import ResNetFPNConfig

LEVELS = (3, 4, 5, 6, 7)
WEIGHT_DECAY = 4e-5
PICTURE = torch.zeros(1, 3, 64, 64)
CLASS_STRIDE, TF1_BOX_STRIDE = 11, 5  # the references keep every n-th channel


def official(
    table: str, keys: Callable, activation: str, *, repeats: int, epsilon: float
) -> RetinaNet:
    """The tiny official detector of a flavour, its weights in place, in eval mode."""
    flavor = table.removeprefix("tiny_")
    config = RetinaNetConfig(
        backbone=SpineNetConfig(width=0.125, block_repeats=repeats, endpoint_filters=24),
        layers=LayerConfig(flavor=flavor, activation=activation, bn_epsilon=epsilon),  # type: ignore[arg-type]
        head=HeadConfig(convs=4, filters=24),
    )
    network, listed = build_retinanet(config, num_classes=91), variables(table)
    key = keys(v.name for v in listed)
    fill_network(network, {key[v.name]: v.value for v in listed})
    return network.eval()


@pytest.fixture(scope="module")
def model_garden() -> RetinaNet:
    return official("tiny_tf2", tf2_keys, "swish", repeats=2, epsilon=1e-3)


def levels_of(rows: torch.Tensor, height: int, width: int) -> dict[int, np.ndarray]:
    """(B, A, K) → {level: (B, rows, columns, 9 K)}, as the official heads give them."""
    sides = {level: (height >> level, width >> level) for level in LEVELS}
    parts = rows.split([9 * h * w for h, w in sides.values()], dim=1)
    return {
        level: part.reshape(rows.shape[0], *sides[level], -1).numpy()
        for level, part in zip(LEVELS, parts, strict=True)
    }


def worst_error(ours: dict[int, np.ndarray], reference: dict, prefix: str, stride: int) -> float:
    errors = []
    for level, values in ours.items():
        theirs = reference.get(f"{prefix}_l{level}")
        if theirs is not None:
            assert values[..., ::stride].shape == theirs.shape
            errors.append(np.abs(values[..., ::stride] - theirs).max() / np.abs(theirs).max())
    assert len(errors) >= 3
    return max(errors)


def ground_truth(reference: dict) -> tuple[torch.Tensor, torch.Tensor]:
    boxes, labels = torch.zeros(2, 6, 4), torch.zeros(2, 6, dtype=torch.long)
    for image in range(2):
        rows = torch.from_numpy(reference[f"gt_boxes_{image}"])[:, [1, 0, 3, 2]]
        boxes[image, : len(rows)] = rows
        labels[image, : len(rows)] = torch.from_numpy(reference[f"gt_classes_{image}"])
    return boxes, labels


def test_model_gardens_outputs_are_ours(model_garden: RetinaNet):
    reference = load("retinanet_tiny_tf2")
    with torch.no_grad():
        logits, codes = model_garden(picture(2, 128, 128))
    assert worst_error(levels_of(logits, 128, 128), reference, "cls", CLASS_STRIDE) <= 1e-5
    assert worst_error(levels_of(codes, 128, 128), reference, "box", 1) <= 1e-5


def test_model_gardens_detections_are_ours(model_garden: RetinaNet):
    reference = load("retinanet_tiny_tf2")
    valid = torch.from_numpy(reference["nms_image_shape"])
    with torch.no_grad():
        found = model_garden.detect(picture(2, 128, 128), valid)
    np.testing.assert_allclose(found.scores, reference["nms_detection_scores"], rtol=1e-5)
    np.testing.assert_array_equal(found.labels, reference["nms_detection_classes"])
    boxes = found.boxes[..., [1, 0, 3, 2]]
    np.testing.assert_allclose(boxes, reference["nms_detection_boxes"], rtol=0, atol=1e-3)


def test_model_gardens_losses_and_gradients_are_ours(model_garden: RetinaNet):
    reference = load("retinanet_tiny_tf2")
    losses = model_garden.losses(picture(2, 128, 128), *ground_truth(reference))
    found = [losses.classification.item(), losses.box.item(), losses.total.item()]
    *expected, positives = reference["loss"]
    assert found == pytest.approx(expected, rel=1e-5)
    assert losses.positives == positives

    # The official gradient is that of the loss with its L2 term over all kernels.
    kernels = [p for p in model_garden.parameters() if p.dim() == 4]
    model_garden.zero_grad()
    (losses.total + WEIGHT_DECAY / 2 * sum((k**2).sum() for k in kernels)).backward()
    ours, key = (
        dict(model_garden.named_parameters()),
        tf2_keys(v.name for v in variables("tiny_tf2")),
    )
    compared = 0
    for name, norm, first in zip(key, reference["grad_l2"], reference["grad_first4"], strict=True):
        if np.isnan(norm):
            assert key[name] not in ours  # a moving statistic
            continue
        gradient = ours[key[name]].grad
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4), name
        as_stored = gradient.permute(2, 3, 1, 0) if gradient.dim() == 4 else gradient
        start = as_stored.reshape(-1)[:4].numpy()
        np.testing.assert_allclose(start, first[: len(start)], rtol=0, atol=1e-4 * norm)
        compared += 1
    assert compared == 631


@pytest.mark.parametrize("activation", ["swish", "relu"])
def test_tensorflow_tpus_outputs_are_ours(activation: str):
    network = official("tiny_tf1", tf1_keys, activation, repeats=1, epsilon=1e-4)
    reference = load("retinanet_tiny_tf1")
    for height, width in [(128, 128), (256, 128)]:
        with torch.no_grad():
            logits, codes = network(picture(2, height, width))
        prefix = f"{activation}_{height}x{width}"
        classes, boxes = levels_of(logits, height, width), levels_of(codes, height, width)
        assert worst_error(classes, reference, f"{prefix}_cls", CLASS_STRIDE) <= 1e-5
        assert worst_error(boxes, reference, f"{prefix}_box", TF1_BOX_STRIDE) <= 1e-5


def tiny(backbone: SpineNetConfig | ResNetFPNConfig) -> RetinaNet:
    torch.manual_seed(0)
    config = RetinaNetConfig(
        backbone=backbone, head=HeadConfig(convs=1, filters=8), anchors=AnchorConfig(scales=2)
    )
    return build_retinanet(config, num_classes=4)


@pytest.mark.parametrize(
    "backbone",
    [
        SpineNetConfig(width=0.0625, endpoint_filters=8),
        ResNetFPNConfig(width=0.0625, endpoint_filters=8),
    ],
)
def test_any_backbone_makes_a_detector_that_learns_and_detects_at_odd_sizes(backbone):
    network, images = tiny(backbone), torch.randn(2, 3, 97, 130)
    boxes, labels = torch.tensor([[[10.0, 10.0, 60.0, 70.0]]] * 2), torch.tensor([[2], [0]])
    losses = network.losses(images, boxes, labels)
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad is not None for p in network.parameters())
    found = network.eval().detect(images, torch.tensor([[97, 130], [50, 130]]))
    assert found.boxes.shape == (2, 100, 4)
    logits, codes = network(images)
    assert logits.shape[1] == codes.shape[1] == len(network.anchors(images))


def test_a_batch_without_any_object_trains_on_background_alone():
    network = tiny(SpineNetConfig(width=0.0625, endpoint_filters=8))
    images = torch.randn(2, 3, 64, 64)
    losses = network.losses(images, torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long))
    assert losses.box == 0
    assert losses.positives == 0
    assert losses.total.isfinite()


def test_an_empty_batch_has_no_detections():
    network = tiny(SpineNetConfig(width=0.0625, endpoint_filters=8)).eval()
    found = network.detect(torch.empty(0, 3, 64, 64), torch.empty(0, 2))
    assert found.boxes.shape == (0, 100, 4)


def test_anchors_are_made_once_while_the_size_stays_and_none_of_another_are_kept():
    network = tiny(SpineNetConfig(width=0.0625, endpoint_filters=8))
    square, wide = torch.empty(1, 3, 64, 64), torch.empty(1, 3, 64, 128)
    first = network.anchors(square)
    assert network.anchors(square) is first
    assert len(network.anchors(wide)) > len(first)
    again = network.anchors(square)
    assert again is not first
    assert torch.equal(again, first)


def test_anchors_are_those_of_the_levels_that_the_backbone_has():
    network, images = tiny(SpineNetConfig(width=0.0625, endpoint_filters=8)).eval(), PICTURE
    network.detect(images, torch.tensor([[64, 64]]))
    network.backbone.keep([3, 4, 5])  # type: ignore[operator]
    assert len(network.anchors(images)) == network(images)[0].shape[1]


def test_exported_anchors_are_not_those_that_detections_are_made_with():
    network = tiny(SpineNetConfig(width=0.0625, endpoint_filters=8)).eval()
    exported = torch.export.export(Anchors(network), (PICTURE,))
    assert type(network.anchors(PICTURE)) is torch.Tensor
    assert torch.equal(exported.module()(PICTURE), network.anchors(PICTURE))


class Anchors(torch.nn.Module):
    """What a user exports beside the network: the anchors, as an output."""

    def __init__(self, network: RetinaNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.anchors(images)
