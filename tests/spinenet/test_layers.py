import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_weights import load
from torch import nn
from torch.export import Dim

from spinenet.layers import (
    HardSigmoid,
    LayerConfig,
    SameConv2d,
    init_backbone,
    max_pool_same,
    same_padding,
)

OPERATIONS = load("operations")


class SamePool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return max_pool_same(x, 3, 2)


def case(size: int) -> torch.Tensor:
    """The input of the official padding cases, (1, 2, size, size + 1)."""
    values = np.random.RandomState(8).randn(1, size, size + 1, 2).astype(np.float32)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(3, 2, 7), (3, 2, 8), (7, 2, 7), (7, 2, 8), (3, 1, 7), (3, 1, 8)]
)
def test_model_garden_convolution_pads_as_tensorflow(kernel: int, stride: int, size: int):
    conv = LayerConfig(flavor="tf2").conv(2, 3, kernel, stride)
    weight = np.random.RandomState(9).randn(kernel, kernel, 2, 3).astype(np.float32)
    conv.weight.data = torch.from_numpy(weight).permute(3, 2, 0, 1)
    reference = OPERATIONS[f"same_conv_k{kernel}_s{stride}_n{size}"]
    np.testing.assert_allclose(channels_last(conv(case(size))), reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_model_garden_depthwise_convolution_pads_as_tensorflow(size: int):
    conv = LayerConfig(flavor="tf2").conv(2, 2, 3, 2, groups=2)
    weight = np.random.RandomState(10).randn(3, 3, 2, 1).astype(np.float32)
    conv.weight.data = torch.from_numpy(weight).permute(2, 3, 0, 1)
    reference = OPERATIONS[f"same_dw_n{size}"]
    np.testing.assert_allclose(channels_last(conv(case(size))), reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_max_pool_pads_as_tensorflow(size: int):
    pooled = max_pool_same(case(size), 3, 2)
    np.testing.assert_array_equal(channels_last(pooled), OPERATIONS[f"same_pool_n{size}"])


@pytest.mark.parametrize("name", ["tf_swish", "simple_swish"])
def test_swish_is_the_official_one(name: str):
    act = LayerConfig(activation="swish").act()
    ours = act(torch.from_numpy(OPERATIONS["act_x"].copy()))
    np.testing.assert_allclose(ours, OPERATIONS[f"act_{name}"], rtol=1e-6, atol=1e-6)


def test_hard_swish_is_the_model_gardens():
    act = LayerConfig(activation="hard_swish").act()
    ours = act(torch.from_numpy(OPERATIONS["act_x"].copy()))
    np.testing.assert_allclose(ours, OPERATIONS["act_hard_swish"], rtol=1e-6, atol=1e-6)


def test_the_hard_gate_is_the_model_gardens_with_its_rounded_sixth():
    ours = HardSigmoid()(torch.from_numpy(OPERATIONS["act_x"]))
    np.testing.assert_allclose(ours, OPERATIONS["act_hard_sigmoid"], rtol=1e-6, atol=1e-6)


def batch_norm(sync: bool) -> tuple[nn.Module, torch.Tensor]:
    """The norm of the official cases before its step, and the batch of the step."""
    norm = LayerConfig(bn_momentum=0.01, bn_epsilon=1e-3, sync_bn=sync).norm(4)
    norm.weight.data = torch.tensor([0.5, 1.0, 1.5, 2.0])
    norm.bias.data = torch.tensor([0.1, -0.2, 0.3, 0.0])
    return norm, torch.from_numpy(OPERATIONS["bn_x"]).permute(0, 3, 1, 2)


def test_batch_norm_updates_and_normalises_as_the_official_fused_one():
    norm, x = batch_norm(sync=False)
    trained = channels_last(norm(x))
    np.testing.assert_allclose(trained, OPERATIONS["bn_fused_train_out"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_mean, OPERATIONS["bn_fused_moving_mean"], rtol=1e-6)
    np.testing.assert_allclose(norm.running_var, OPERATIONS["bn_fused_moving_variance"], rtol=1e-6)

    evaluated = channels_last(norm.eval()(x))
    np.testing.assert_allclose(evaluated, OPERATIONS["bn_fused_eval_out"], rtol=1e-5, atol=1e-6)


def test_synchronised_batch_norm_is_the_official_one_but_for_bessels_correction():
    norm, x = batch_norm(sync=True)
    trained = channels_last(norm(x))
    np.testing.assert_allclose(trained, OPERATIONS["bn_sync_train_out"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_mean, OPERATIONS["bn_sync_moving_mean"], rtol=1e-6)

    # PyTorch's running variance takes the batch's sum of squares over n - 1, the official over n.
    n = x.numel() // 4
    theirs = torch.from_numpy(OPERATIONS["bn_sync_moving_variance"])
    batch = (norm.running_var - 0.99) / 0.01
    torch.testing.assert_close(norm.running_var - theirs, 0.01 * batch / n, rtol=1e-3, atol=0)
    norm.running_var = theirs
    evaluated = channels_last(norm.eval()(x))
    np.testing.assert_allclose(evaluated, OPERATIONS["bn_sync_eval_out"], rtol=1e-5, atol=1e-6)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_max_pool_of_any_map_is_the_maximum_of_each_window(
    height: int, width: int, kernel: int, stride: int
):
    x = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(height * width))
    pooled = max_pool_same(x, kernel, stride)
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    assert pooled.shape == (1, 1, rows, columns)
    (top, _), (left, _) = same_padding(height, kernel, stride), same_padding(width, kernel, stride)
    for i in range(rows):
        for j in range(columns):
            y, z = i * stride - top, j * stride - left
            window = x[0, 0, max(y, 0) : y + kernel, max(z, 0) : z + kernel]
            assert pooled[0, 0, i, j] == window.max()


@given(size=st.integers(1, 50), kernel=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 5))
def test_same_padding_gives_ceil_outputs_and_puts_the_odd_one_last(
    size: int, kernel: int, stride: int
):
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    assert (size + before + after - kernel) // stride + 1 == math.ceil(size / stride)


@pytest.mark.parametrize("layer", [SamePool(), SameConv2d(1, 1, 3, 2)])
def test_one_graph_of_any_size_that_divides_computes_what_the_layer_does(layer: nn.Module):
    rows, columns = Dim("rows", min=2, max=64), Dim("columns", min=2, max=64)
    exported = torch.export.export(
        layer, (torch.randn(1, 1, 8, 12),), dynamic_shapes=({2: 2 * rows, 3: 2 * columns},)
    )
    x = torch.randn(1, 1, 30, 26)
    assert torch.equal(exported.module()(x), layer(x))


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
@pytest.mark.parametrize("size", [(8, 8), (7, 8), (7, 5)])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_strided_convolution_halves_upwards_in_both_flavours(flavor, size, kernel):
    conv = LayerConfig(flavor=flavor).conv(1, 1, kernel, 2)
    expected = tuple(math.ceil(side / 2) for side in size)
    assert conv(torch.zeros(1, 1, *size)).shape[-2:] == expected


def test_strided_convolution_is_aligned_differently_in_the_two_flavours():
    tf1, tf2 = (LayerConfig(flavor=flavor).conv(1, 1, 3, 2) for flavor in ("tf1", "tf2"))
    for conv in (tf1, tf2):
        conv.weight.data.zero_()
        conv.weight.data[0, 0, 1, 1] = 1  # reads the centre of its window
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert tf1(ramp)[0, 0, 0].tolist() == [0, 2, 4, 6]
    assert tf2(ramp)[0, 0, 0].tolist() == [1, 3, 5, 7]


def test_backbone_weights_start_as_a_truncated_normal_of_one_over_fan_in():
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 256, 3)
    init_backbone(conv)
    fan_in = 64 * 9
    assert conv.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.01)
    assert conv.weight.abs().max().item() <= 2 * fan_in**-0.5 / 0.8796256
    assert conv.bias is not None
    assert not conv.bias.any()


def test_only_the_model_gardens_strided_convolutions_need_one_sided_padding():
    kinds = {
        (flavor, stride): type(LayerConfig(flavor=flavor).conv(1, 1, 3, stride))
        for flavor in ("tf1", "tf2")
        for stride in (1, 2)
    }
    assert kinds.pop(("tf2", 2)) is SameConv2d
    assert set(kinds.values()) == {nn.Conv2d}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flavor": "tf3"}, "flavor 'tf3' is unknown; known: tf1, tf2"),
        ({"activation": "gelu"}, "activation 'gelu' is unknown; known: relu, swish"),
        ({"bn_momentum": 0}, "the paper's 0.99 is 0.01 here"),
        ({"bn_epsilon": -0.001}, "bn_epsilon -0.001 must be above 0"),
        ({"drop_block_size": 0}, "drop_block_size 0 must be at least 1"),
    ],
)
def test_unknown_conventions_are_refused_with_the_known_ones(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LayerConfig(**wrong)
