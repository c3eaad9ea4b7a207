import pytest
import torch

from spinenet.blocks import BLOCKS, MBConv, block_group
from spinenet.genotype import BOTTLENECK, EXPANSION, RESIDUAL
from spinenet.layers import LayerConfig

LAYERS = LayerConfig()
RESNET_KINDS = (RESIDUAL, BOTTLENECK)


@pytest.mark.parametrize("kind", RESNET_KINDS)
def test_block_that_starts_without_its_branch_is_the_activated_shortcut(kind: str):
    inputs = 4 * EXPANSION[kind]
    layers = LayerConfig(zero_init_last=True)
    block = BLOCKS[kind](layers, inputs=inputs, width=4).eval()
    x = torch.randn(2, inputs, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x.relu())


@pytest.mark.parametrize("kind", RESNET_KINDS)
def test_block_is_its_convolutions_written_out(kind: str):
    torch.manual_seed(0)
    block = BLOCKS[kind](LAYERS, inputs=6, width=4, stride=2, project=True).eval()
    x = torch.randn(2, 6, 8, 6)
    y, branch = x, [name for name, _ in block.named_children() if name.startswith("conv")]
    for conv in branch:
        y = block.get_submodule(conv.replace("conv", "norm"))(block.get_submodule(conv)(y))
        y = y.relu() if conv != branch[-1] else y
    expected = (y + block.shortcut.norm(block.shortcut.conv(x))).relu()
    torch.testing.assert_close(block(x), expected)
    assert expected.shape == (2, 4 * EXPANSION[kind], 4, 3)


@pytest.mark.parametrize("kind", RESNET_KINDS)
@pytest.mark.parametrize("repeats", [1, 3])
def test_only_the_first_block_of_a_group_strides_and_projects(kind: str, repeats: int):
    group = block_group(LAYERS, kind, inputs=6, width=4, repeats=repeats, stride=2, project=True)
    assert len(group) == repeats
    projecting = [not isinstance(block.shortcut, torch.nn.Identity) for block in group]
    assert projecting == [True] + [False] * (repeats - 1)
    assert group(torch.zeros(2, 6, 9, 8)).shape == (2, 4 * EXPANSION[kind], 5, 4)


@pytest.mark.parametrize("kind", RESNET_KINDS)
def test_no_convolution_of_a_block_has_a_bias(kind: str):
    block = BLOCKS[kind](LAYERS, inputs=6, width=4, project=True)
    convs = [m for m in block.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) >= 3
    assert all(conv.bias is None for conv in convs)


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
def test_mbconv_is_its_layers_written_out(flavor: str):
    torch.manual_seed(0)
    block = MBConv(LayerConfig(flavor=flavor, activation="swish"), inputs=6, width=4, stride=2)  # type: ignore[arg-type]
    x = torch.randn(2, 6, 8, 6)
    block.eval()
    y = block.depthwise(block.expand(x))
    excite = block.excite
    assert excite.reduce.out_channels == 1  # a fifth of 6, rounded down
    gate = excite.reduce(y.mean((2, 3), keepdim=True))
    if flavor == "tf1":
        gate = excite.expand(torch.nn.functional.silu(gate)).sigmoid()
    else:
        gate = (excite.expand(gate.relu()) + 3).clamp(0, 6) * 0.16667
    torch.testing.assert_close(block(x), block.project(y * gate))
    assert block(x).shape == (2, 4, 4, 3)


def test_mbconv_adds_its_input_where_the_shape_stays():
    block = MBConv(LAYERS, inputs=4, width=4).eval()
    torch.nn.init.zeros_(block.project.norm.weight)
    x = torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(block(x), x)
    wider = block_group(LAYERS, "mbconv", inputs=4, width=6, repeats=3, stride=2)
    assert [b.keeps_shape for b in wider] == [False, True, True]
    assert wider(x).shape == (2, 6, 3, 4)


@pytest.mark.parametrize("kind", BLOCKS)
def test_stochastic_depth_drops_the_branch_of_whole_pictures_and_keeps_its_mean(kind: str):
    torch.manual_seed(0)
    width = 4
    block = BLOCKS[kind](LAYERS, inputs=width * EXPANSION[kind], width=width, drop_rate=0.5).train()
    for norm in (m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.eval()
    branch = []
    block.drop_branch.register_forward_hook(lambda _, given, out: branch.append((given[0], out)))
    block(torch.randn(64, width * EXPANSION[kind], 3, 3))
    ((before, after),) = branch
    dropped = (after == 0).flatten(1).all(1)
    assert torch.equal(after[~dropped], 2 * before[~dropped])
    assert 16 < dropped.sum() < 48


def test_drop_block_zeroes_squares_in_training_and_nothing_in_evaluation():
    torch.manual_seed(0)
    layers = LayerConfig(drop_block=0.3, drop_block_size=3)
    block = BLOCKS[RESIDUAL](layers, inputs=8, width=8)
    seen = []
    block.drop.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    x = torch.randn(4, 8, 12, 12)
    block.train()(x)
    block.eval()(x)
    given, dropped = seen[0]
    share = ((dropped == 0) & (given != 0)).float().mean()
    assert 0.1 < share < 0.5
    assert len(seen) == 6
    assert all(given is out or torch.equal(given, out) for given, out in seen[3:])
