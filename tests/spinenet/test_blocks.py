import pytest
import torch

from spinenet.blocks import BLOCKS, block_group
from spinenet.genotype import EXPANSION
from spinenet.layers import LayerConfig

LAYERS = LayerConfig()


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_without_its_branch_is_the_activated_shortcut(kind: str):
    inputs = 4 * EXPANSION[kind]
    block = BLOCKS[kind](LAYERS, inputs=inputs, width=4).eval()
    last = block.norm3 if hasattr(block, "norm3") else block.norm2
    torch.nn.init.zeros_(last.weight)
    x = torch.randn(2, inputs, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x.relu())


@pytest.mark.parametrize("kind", BLOCKS)
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


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("repeats", [1, 3])
def test_only_the_first_block_of_a_group_strides_and_projects(kind: str, repeats: int):
    group = block_group(LAYERS, kind, inputs=6, width=4, repeats=repeats, stride=2, project=True)
    assert len(group) == repeats
    projecting = [not isinstance(block.shortcut, torch.nn.Identity) for block in group]
    assert projecting == [True] + [False] * (repeats - 1)
    assert group(torch.zeros(2, 6, 9, 8)).shape == (2, 4 * EXPANSION[kind], 5, 4)


@pytest.mark.parametrize("kind", BLOCKS)
def test_no_convolution_of_a_block_has_a_bias(kind: str):
    block = BLOCKS[kind](LAYERS, inputs=6, width=4, project=True)
    convs = [m for m in block.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) >= 3
    assert all(conv.bias is None for conv in convs)
