import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import genotypes
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spinenet.backbone import SpineNet, SpineNetConfig
from spinenet.complexity import complexity, without_values
from spinenet.derivations import sequential
from spinenet.detection.head import HeadConfig
from spinenet.detection.retinanet import RetinaNet, RetinaNetConfig, build_retinanet
from spinenet.genotype import Genotype, load
from spinenet.layers import LayerConfig
from spinenet.resnet import ResNetFPNConfig

SPINENET_49 = SpineNetConfig()
SPINENET_49S = SpineNetConfig(width=0.65, endpoint_filters=128)
SPINENET_49S_PRINTED = SpineNetConfig(width=0.65, endpoint_filters=256)
SPINENET_96 = SpineNetConfig(block_repeats=2)
SPINENET_143 = SpineNetConfig(block_repeats=3, resample_alpha=1.0)
SPINENET_190 = SpineNetConfig(width=1.3, block_repeats=4, resample_alpha=1.0, endpoint_filters=512)
R0_SP53 = SpineNetConfig(genotype=load("r0-sp53"))
R0_SP53_SEQUENTIAL = SpineNetConfig(genotype=sequential(load("r0-sp53")))
MOBILE = SpineNetConfig(genotype=load("spinenet-49-mobile"))

# Network, head, side in pixels, multiply-adds in 1e9, parameters in 1e6, as the paper's tables
# print them; the two 49S rows are the released code's network and the one that the printed counts
# fit. The sequential row is our own count.
PRINTED = {
    "SpineNet-49": (SPINENET_49, (4, 256), 640, 85.4, 28.5),
    "SpineNet-96": (SPINENET_96, (4, 256), 1024, 265.4, 43.0),
    "SpineNet-143": (SPINENET_143, (4, 256), 1280, 524.4, 66.9),
    "SpineNet-190": (SPINENET_190, (7, 512), 1280, 1885.0, 163.6),
    "R50-FPN": (ResNetFPNConfig(), (4, 256), 640, 96.8, 34.0),
    "R0-SP53": (R0_SP53, (4, 256), 640, 95.2, None),
    "R0-SP53, sequential": (R0_SP53_SEQUENTIAL, (4, 256), 640, 89.1, None),
    "SpineNet-49S as released": (SPINENET_49S, (4, 128), 640, 30.8, 11.27),
    "SpineNet-49S as printed": (SPINENET_49S_PRINTED, (4, 128), 640, 33.8, 11.9),
}


def detector(
    backbone: SpineNetConfig | ResNetFPNConfig, head: tuple[int, int], flavor: str = "tf1"
) -> RetinaNet:
    config = RetinaNetConfig(
        backbone=backbone,
        head=HeadConfig(*head),
        layers=LayerConfig(flavor=flavor),  # type: ignore[arg-type]
    )
    with torch.device("meta"):
        return build_retinanet(config, num_classes=91)


@pytest.mark.parametrize("name", PRINTED)
def test_counts_are_the_printed_ones_within_one_percent(name: str):
    backbone, head, side, macs_b, params_m = PRINTED[name]
    counted = complexity(detector(backbone, head), side)
    assert counted.macs_b == pytest.approx(macs_b, rel=0.01)
    if params_m is not None:
        assert counted.params_m == pytest.approx(params_m, rel=0.01)


def test_the_released_49s_has_exactly_the_official_number_of_trainable_values():
    assert complexity(detector(SPINENET_49S, (4, 128)), 128).params_m * 1e6 == 11_265_942


def by_operators(model: nn.Module, side: tuple[int, int]) -> int:
    """Multiply-adds as PyTorch counts them, operator by operator, on meta tensors."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.empty(1, 3, *side, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
@pytest.mark.parametrize("backbone", [SPINENET_49S, R0_SP53_SEQUENTIAL, ResNetFPNConfig(), MOBILE])
@pytest.mark.parametrize("side", [(640, 640), (97, 130)])
def test_counter_equals_an_independent_count_exactly(flavor: str, backbone, side):
    model = detector(backbone, (2, 64), flavor)
    assert round(complexity(model, side).macs_b * 1e9) == by_operators(model, side)


@given(
    genotype=genotypes(max_inner=3),
    flavor=st.sampled_from(["tf1", "tf2"]),
    repeats=st.integers(1, 2),
)
@settings(max_examples=8, deadline=None)
def test_any_genotype_is_counted_as_its_operators_are(
    genotype: Genotype, flavor: str, repeats: int
):
    with torch.device("meta"):
        config = SpineNetConfig(genotype=genotype, block_repeats=repeats)
        network = SpineNet(config, LayerConfig(flavor=flavor))  # type: ignore[arg-type]
    counted = complexity(network, (97, 130))
    assert round(counted.macs_b * 1e9) == by_operators(network, (97, 130)) > 0
    assert round(counted.params_m * 1e6) == sum(p.numel() for p in network.parameters())


def test_linear_layers_count_too():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    counted = complexity(model, 32)
    assert round(counted.macs_b * 1e9) == by_operators(model.to("meta"), (32, 32)) == 30
    assert round(counted.params_m * 1e6) == 40


@pytest.mark.parametrize("backbone", [SPINENET_49S, ResNetFPNConfig(), MOBILE])
def test_networks_without_values_have_every_shape_and_draw_nothing(backbone):
    config, before = RetinaNetConfig(backbone=backbone), torch.get_rng_state()
    with without_values():
        model = build_retinanet(config, num_classes=7)
    assert all(p.is_meta for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    real = build_retinanet(config, num_classes=7)
    shapes = {name: value.shape for name, value in real.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    assert complexity(model, 64) == complexity(real, 64)


def test_weights_are_drawn_again_after_networks_without_values():
    with without_values():
        nn.Linear(3, 3)
    assert nn.init.ones_(torch.empty(2)).tolist() == [1, 1]


def test_modules_add_up_to_the_whole():
    model = detector(SPINENET_49, (4, 256))
    counted = complexity(model, 256)
    parts = counted.macs_b_by_module
    assert parts["backbone"] + parts["head"] == pytest.approx(counted.macs_b)
    convs = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert sum(parts[name] for name in convs) == pytest.approx(counted.macs_b)


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    complexity(model, (20, 30))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_counting_on_the_meta_device_leaves_every_layers_mode_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).to("meta")
    model[1].eval()
    complexity(model, 8)
    assert [m.training for m in model] == [True, False, True]


def test_pictures_may_have_other_channels():
    assert round(complexity(nn.Conv2d(5, 2, 1), 8, channels=5).macs_b * 1e9) == 8 * 8 * 5 * 2


def test_frozen_parameters_are_not_counted():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    model[0].requires_grad_(False)
    assert round(complexity(model, 8).params_m * 1e6) == 20
