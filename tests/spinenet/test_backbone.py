from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from official_names import tf1_keys, tf2_keys
from official_weights import fill_network, load, picture, variables
from strategies import genotypes

from spinenet.backbone import SpineNet, SpineNetConfig
from spinenet.derivations import sequential
from spinenet.genotype import BlockSpec, Genotype
from spinenet.genotype import load as load_genotype
from spinenet.layers import LayerConfig

LEVELS = (3, 4, 5, 6, 7)


def small(genotype: Genotype, flavor: str = "tf1") -> SpineNet:
    width = 0.125 if genotype.is_mobile else 0.0625
    config = SpineNetConfig(genotype=genotype, width=width, endpoint_filters=8)
    return SpineNet(config, LayerConfig(flavor=flavor)).eval()  # type: ignore[arg-type]


# Network, table of its variables and of its features, which channels the features keep.
GARDEN = {
    "49s": (SpineNetConfig(width=0.65, endpoint_filters=128), 5),
    "mobile_49xs": (
        SpineNetConfig(
            genotype=load_genotype("spinenet-49-mobile"), width=0.6, endpoint_filters=24
        ),
        1,
    ),
}


@cache
def garden_weights(name: str) -> dict[str, torch.Tensor]:
    listed = variables(name)
    keys = tf2_keys(v.name for v in listed)
    return {keys[v.name].removeprefix("backbone."): v.value for v in listed}


def garden_network(name: str, activation: str) -> SpineNet:
    layers = LayerConfig(flavor="tf2", activation=activation, bn_epsilon=1e-3)  # type: ignore[arg-type]
    network = SpineNet(GARDEN[name][0], layers)
    fill_network(network, garden_weights(name))
    return network.eval()


def worst_error(
    features: dict[int, torch.Tensor], reference: dict, prefix: str, channel_stride: int
) -> float:
    errors = []
    for level, feature in features.items():
        ours = feature.permute(0, 2, 3, 1)[..., ::channel_stride].numpy()
        theirs = reference[f"{prefix}_l{level}"]
        assert ours.shape == theirs.shape
        errors.append(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return max(errors)


@pytest.mark.parametrize(
    ("name", "activation"), [("49s", "swish"), ("49s", "relu"), ("mobile_49xs", "swish")]
)
def test_features_are_the_model_gardens_to_float64(name: str, activation: str):
    network = garden_network(name, activation).double()
    with torch.no_grad():
        features = network(picture(1, 128, 128).double())
    assert list(features) == list(LEVELS)
    reference, prefix = load(f"backbone_{name}"), f"f64_{activation}_128x128"
    assert worst_error(features, reference, prefix, GARDEN[name][1]) <= 1e-12


@pytest.mark.parametrize(
    ("name", "activation", "height", "width"),
    [
        ("49s", "swish", 128, 128),
        ("49s", "relu", 128, 128),
        ("49s", "swish", 256, 128),
        ("49s", "relu", 128, 384),
        ("mobile_49xs", "swish", 128, 128),
        ("mobile_49xs", "relu", 128, 128),
        ("mobile_49xs", "swish", 256, 128),
        ("mobile_49xs", "relu", 128, 384),
    ],
)
def test_features_are_the_model_gardens_in_float32(
    name: str, activation: str, height: int, width: int
):
    network = garden_network(name, activation)
    with torch.no_grad():
        features = network(picture(1, height, width))
    reference, prefix = load(f"backbone_{name}"), f"{activation}_{height}x{width}"
    precise = "f64_" if f"f64_{prefix}_l3" in reference else ""
    assert worst_error(features, reference, precise + prefix, GARDEN[name][1]) <= 1e-5


@pytest.mark.parametrize("activation", ["swish", "relu"])
@pytest.mark.parametrize("name", GARDEN)
def test_every_block_and_every_edge_is_the_model_gardens(name: str, activation: str):
    network, seen = garden_network(name, activation), {}
    for index, block in network.blocks.items():
        block.register_forward_hook(lambda _, __, out, i=int(index): seen.update({(i,): out}))
    for index, edges in network.resample.items():
        for k, edge in enumerate(edges):
            edge.register_forward_hook(
                lambda _, __, out, at=(int(index), k): seen.update({at: out.clone()})
            )
    with torch.no_grad():
        network(picture(1, 128, 128))
    probes = load("probes")
    names = probes[f"{name}_names"].tolist()
    assert len(names) == len(seen)
    for official, (l2, mean, low, high, *ends) in zip(
        names, probes[f"{name}_{activation}"], strict=True
    ):
        ours = seen[_place(official)].permute(0, 2, 3, 1).flatten().double()
        largest = max(abs(low), abs(high))
        assert ours.norm() == pytest.approx(l2, rel=1e-5), official
        for mine, theirs in [
            (ours.mean(), mean),
            (ours.min(), low),
            (ours.max(), high),
            *zip(torch.cat([ours[:8], ours[-8:]]), ends, strict=True),
        ]:
            assert abs(mine - theirs) <= 1e-5 * largest, official


def _place(official: str) -> tuple[int, ...]:
    """Index of the block, and of the edge into it, that a probe's official name stands for."""
    block, _, edge = official.partition(".resample")
    number = int(block.rsplit("_", 1)[-1].removeprefix("block"))
    index = number - 1 if block.startswith("stem") else number + 1
    return (index, int(edge)) if edge else (index,)


@pytest.mark.parametrize("activation", ["swish", "relu"])
@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 128)])
def test_tiny_network_gives_tensorflow_tpus_features(activation: str, height: int, width: int):
    layers = LayerConfig(flavor="tf1", activation=activation, bn_epsilon=1e-4)  # type: ignore[arg-type]
    network = SpineNet(SpineNetConfig(width=0.125, endpoint_filters=24), layers).eval()
    listed = [v for v in variables("tiny_tf1") if v.name.startswith("spinenet/")]
    keys = tf1_keys(v.name for v in listed)
    fill_network(network, {keys[v.name].removeprefix("backbone."): v.value for v in listed})
    with torch.no_grad():
        features = network(picture(2, height, width))
    reference = load("retinanet_tiny_tf1")
    assert worst_error(features, reference, f"{activation}_{height}x{width}_feat", 5) <= 1e-5


@pytest.mark.parametrize("scale", ["0.65", "1", "1.3"])
def test_widths_and_rates_of_stochastic_depth_are_the_model_gardens(scale: str):
    layers = LayerConfig(flavor="tf2", stochastic_depth=0.2)
    with torch.device("meta"):
        network = SpineNet(SpineNetConfig(width=float(scale)), layers)
    operations = load("operations")
    widths, rates = operations[f"graph_widths_{scale}"], operations["stochastic_depth_rates"]
    for row, (inner, outputs) in enumerate(widths[:15]):  # its 16th block is at level 2
        block = network.blocks[str(row + 2)][0]
        assert block.conv1.out_channels == inner
        assert network.resample[str(row + 2)][0].expand.conv.out_channels == outputs
        assert block.drop_branch.drop_prob == pytest.approx(rates[row])


def test_the_two_flavours_are_different_networks_of_equal_weights():
    ours, theirs = small(load_genotype("spinenet-49")), small(load_genotype("spinenet-49"), "tf2")
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        one, other = ours(picture(1, 128, 128)), theirs(picture(1, 128, 128))
    assert all(one[level].shape == other[level].shape for level in LEVELS)
    assert not torch.allclose(one[3], other[3], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
@given(genotype=genotypes())
@settings(max_examples=25, deadline=None)
def test_any_genotype_runs_at_any_size_with_one_endpoint_per_output(
    flavor: str, genotype: Genotype
):
    network = small(genotype, flavor)
    for height, width in [(64, 64), (97, 130), (33, 20)]:
        with torch.no_grad():
            features = network(torch.zeros(1, 3, height, width))
        sides = {
            level: (-(-height // 2**level), -(-width // 2**level)) for level in genotype.outputs
        }
        assert {level: tuple(f.shape) for level, f in features.items()} == {
            level: (1, 8, *side) for level, side in sides.items()
        }
        assert all(f.isfinite().all() for f in features.values())


@given(genotype=genotypes())
@settings(max_examples=15, deadline=None)
def test_any_genotype_builds_on_the_meta_device_at_full_width(genotype: Genotype):
    with torch.device("meta"):
        network = SpineNet(SpineNetConfig(genotype=genotype), LayerConfig())
        features = network(torch.empty(2, 3, 128, 192))
    assert list(features) == list(genotype.outputs)
    assert network.channels == dict.fromkeys(genotype.outputs, 256)


@given(genotype=genotypes())
@settings(max_examples=15, deadline=None)
def test_every_parameter_of_any_genotype_receives_a_gradient(genotype: Genotype):
    network = small(genotype)
    network.act = torch.nn.SiLU()
    out = network(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    sum(f.sum() for f in out.values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_a_block_that_no_output_depends_on_is_not_built():
    blocks = (BlockSpec(3, "bottleneck", (0, 1), True), BlockSpec(5, "residual", (2,)))
    network = small(Genotype(name="loose end", stem=(2, 2), blocks=blocks))
    assert set(network.blocks) == {"0", "1", "2"}


@pytest.mark.parametrize("levels", [[9], [3, 9], []])
def test_only_levels_that_there_are_can_be_kept(levels: list[int]):
    network = small(load_genotype("spinenet-49"))
    with pytest.raises(ValueError, match="must be some of this network's: 3, 4, 5, 6, 7"):
        network.keep(levels)


def test_a_merged_block_is_built_and_changes_the_output():
    genotype = load_genotype("spinenet-49")
    network = small(genotype)
    with torch.no_grad():
        before = network(picture(1, 64, 64))
        network.blocks["11"][0].norm3.bias += 1
        after = network(picture(1, 64, 64))
    assert not torch.equal(before[5], after[5])  # 11 joins 14, the output of level 5
    assert torch.equal(before[4], after[4])


def test_output_and_parameters_follow_repeats_and_endpoint_width():
    genotype = load_genotype("r0-sp53")
    layers = LayerConfig()
    once, twice = (
        SpineNet(SpineNetConfig(genotype, width=0.0625, block_repeats=n), layers) for n in (1, 2)
    )
    added = set(twice.state_dict()) - set(once.state_dict())
    assert added
    assert all(key.startswith("blocks.") and key.split(".")[2] == "1" for key in added)
    assert {key.split(".")[1] for key in added} == {str(i) for i in range(17)}


def test_no_edge_of_the_sequential_network_is_longer_than_one_block():
    network = small(sequential(load_genotype("spinenet-49")))
    assert {key: len(edges) for key, edges in network.resample.items()} == {
        str(i): 1 for i in range(2, 17)
    }


def test_channels_last_memory_gives_the_same_features():
    network = small(load_genotype("spinenet-49"))
    images = picture(1, 96, 160)
    with torch.no_grad():
        plain = network(images)
        fast = network.to(memory_format=torch.channels_last)(
            images.to(memory_format=torch.channels_last)
        )
    for level in LEVELS:
        torch.testing.assert_close(plain[level], fast[level], rtol=1e-4, atol=1e-5)


def test_the_stem_ignores_the_width_multiplier():
    network = small(load_genotype("spinenet-49"))
    assert network.stem.conv.weight.shape == (64, 3, 7, 7)
    assert network.blocks["0"][0].conv1.weight.shape == (4, 64, 1, 1)


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"block_repeats": 0}, "block_repeats 0 must be at least 1"),
        ({"width": 0.01}, "width 0.01 with resample_alpha 0.5"),
        ({"resample_alpha": 0.001}, "resample_alpha 0.001 leaves a layer without channels"),
    ],
)
def test_a_network_without_channels_or_blocks_is_refused(settings_: dict, named: str):
    with pytest.raises(ValueError, match=named):
        SpineNetConfig(**settings_)
