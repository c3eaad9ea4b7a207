import pytest
import torch

from spinenet.config import ClassifierConfig, ResNetConfig
from spinenet.detection.config import MaskRCNNConfig, RetinaNetConfig
from spinenet.layers import LayerConfig, SameConv2d
from spinenet.resnet import ResNetFPN, ResNetFPNConfig


def small(flavor: str = "tf1", activation: str = "relu", **config) -> ResNetFPN:
    torch.manual_seed(0)
    layers = LayerConfig(flavor=flavor, activation=activation)  # type: ignore[arg-type]
    return ResNetFPN(ResNetFPNConfig(width=0.0625, endpoint_filters=8, **config), layers).eval()


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
@pytest.mark.parametrize("side", [(64, 64), (97, 130), (33, 20)])
def test_pyramid_has_five_levels_of_any_picture(flavor: str, side: tuple[int, int]):
    features = small(flavor)(torch.zeros(2, 3, *side))
    expected = {n: (2, 8, -(-side[0] // 2**n), -(-side[1] // 2**n)) for n in range(3, 8)}
    assert {level: tuple(p.shape) for level, p in features.items()} == expected


def test_every_convolution_of_the_pyramid_has_a_bias_and_none_of_the_body():
    network = small()
    convs = {n: m for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert {name.split(".")[0] for name, conv in convs.items() if conv.bias is not None} == {"fpn"}
    assert all(conv.bias is None for name, conv in convs.items() if name.startswith("body"))


@pytest.mark.parametrize(("depth", "convs"), [(34, 37), (50, 53), (101, 104), (152, 155)])
def test_depth_counts_the_bodys_convolutions(depth: int, convs: int):
    network = small(depth=depth)
    # Named depth: all but the four projections, plus the classifier that is not here.
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.body.modules()) == convs
    assert convs == depth - 1 + 4


def test_stride_is_in_the_3x3_convolution_and_padded_as_the_flavour_pads():
    for flavor, kind in (("tf1", torch.nn.Conv2d), ("tf2", SameConv2d)):
        strided = [
            m
            for m in small(flavor).body.modules()
            if isinstance(m, torch.nn.Conv2d) and m.stride[0] == 2
        ]
        assert [m.kernel_size[0] for m in strided] == [7, 3, 1, 3, 1, 3, 1]
        assert {type(m) for m in strided} == {kind}


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
def test_activation_and_norm_are_the_projects_and_p7_follows_the_code_base(flavor: str):
    network = ResNetFPN(
        ResNetFPNConfig(width=0.0625, endpoint_filters=8),
        LayerConfig(flavor=flavor, activation="swish", bn_momentum=0.02, bn_epsilon=1e-4),
    )
    kinds = {type(m) for m in network.body.modules()}
    assert torch.nn.SiLU in kinds
    assert torch.nn.ReLU not in kinds
    before_p7 = {"tf1": torch.nn.ReLU, "tf2": torch.nn.SiLU}[flavor]
    assert isinstance(network.fpn.act, before_p7)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.02, 1e-4)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 18}, "depth 18 is unknown; known: 34, 50, 101, 152"),
        ({"width": 0.01}, "width 0.01 leaves a layer without channels"),
    ],
)
def test_a_body_that_does_not_exist_is_refused(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ResNetFPNConfig(**wrong)


@pytest.mark.parametrize("depth", [34, 50])
@pytest.mark.parametrize("zeroed", [False, True])
def test_every_norm_starts_at_one_but_where_the_last_of_each_block_is_to_start_at_zero(
    depth: int, zeroed: bool
):
    config = ResNetFPNConfig(depth=depth, width=0.0625)
    network = ResNetFPN(config, LayerConfig(zero_init_last=zeroed))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((norm.weight == norm.weight[0]).all() and not norm.bias.any() for norm in norms)
    started = [norm.weight[0].item() for norm in norms]
    assert started.count(0.0) == (16 if zeroed else 0)
    assert started.count(1.0) == len(started) - started.count(0.0)


def test_stochastic_depth_rises_from_group_to_group():
    layers = LayerConfig(stochastic_depth=0.2)
    body = ResNetFPN(ResNetFPNConfig(width=0.0625), layers).body
    rates = [[block.drop_path.drop_prob for block in body[f"layer{n}"]] for n in range(1, 5)]
    assert [len(group) for group in rates] == [3, 4, 6, 3]
    for place, group in enumerate(rates, start=2):  # of five: the stem counts
        assert group == pytest.approx([0.2 * place / 5] * len(group))


def test_synchronised_norms_reach_the_body():
    layers = LayerConfig(sync_bn=True)
    names = {type(m).__name__ for m in ResNetFPN(ResNetFPNConfig(width=0.0625), layers).modules()}
    assert "SyncBatchNorm" in names
    assert "BatchNorm2d" not in names


@pytest.mark.parametrize(
    ("config", "backbone"),
    [
        (RetinaNetConfig, ResNetFPNConfig()),
        (MaskRCNNConfig, ResNetFPNConfig()),
        (ClassifierConfig, ResNetConfig()),
    ],
)
def test_cells_are_not_dropped_of_a_resnet(config: type, backbone: object):
    with pytest.raises(ValueError, match=r"drop_block 0\.1 is for SpineNets; leave it at 0"):
        config(backbone=backbone, layers=LayerConfig(drop_block=0.1))
