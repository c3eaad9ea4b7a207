import pytest
import torch
from official_weights import load
from torch.nn import functional as F

from spinenet.layers import LayerConfig, max_pool_same
from spinenet.resample import MobileResample, Resample

OPERATIONS = load("operations")


def edge(flavor: str, halvings: int) -> Resample:
    torch.manual_seed(0)
    layers = LayerConfig(flavor=flavor)  # type: ignore[arg-type]
    return Resample(layers, inputs=6, squeezed=3, outputs=5, halvings=halvings).eval()


def noise(side: tuple[int, int]) -> torch.Tensor:
    return torch.randn(2, 6, *side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
def test_equal_levels_still_pass_two_convolutions_and_the_last_has_no_activation(flavor: str):
    module, x = edge(flavor, 0), noise((4, 4))
    assert module.down is None
    out = module(x, (4, 4))
    torch.testing.assert_close(out, module.expand.norm(module.expand.conv(module.squeeze(x))))
    assert (out < 0).any()


@pytest.mark.parametrize("factor", [2, 4])
def test_growing_repeats_each_cell(factor: int):
    module, x = edge("tf1", -1), noise((3, 4))
    grown = module.squeeze(x).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    torch.testing.assert_close(module(x, (3 * factor, 4 * factor)), module.expand(grown))


@pytest.mark.parametrize("factor", [2, 4])
def test_growing_takes_the_cells_that_the_model_garden_takes(factor: int):
    grown = torch.from_numpy(OPERATIONS[f"nearest_up_x{factor}"]).permute(0, 3, 1, 2)
    module = MobileResample(LayerConfig(), inputs=2, outputs=2, halvings=-1).eval()
    x = grown[..., ::factor, ::factor]
    torch.testing.assert_close(module(x, grown.shape[-2:]), module.expand(grown))


@pytest.mark.parametrize(
    ("halvings", "window"), [(1, None), (2, (3, 2)), (3, (5, 4)), (4, (5, 8)), (5, (5, 16))]
)
def test_tensorflow_tpu_shrinks_by_a_convolution_and_one_pool(halvings: int, window):
    module, x = edge("tf1", halvings), noise((64, 96))
    assert module.down is not None
    y = module.down(module.squeeze(x))
    y = max_pool_same(y, *window) if window else y
    target = (64 >> halvings, 96 >> halvings)
    assert y.shape[-2:] == target
    torch.testing.assert_close(module(x, target), module.expand(y))


@pytest.mark.parametrize("halvings", [1, 2, 3, 4])
def test_the_model_garden_shrinks_by_a_convolution_and_halving_pools(halvings: int):
    module, x = edge("tf2", halvings), noise((32, 48))
    assert module.down is not None
    y = module.down(module.squeeze(x))
    for _ in range(halvings - 1):
        y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    torch.testing.assert_close(module(x, (32 >> halvings, 48 >> halvings)), module.expand(y))


def test_tensorflow_tpu_pools_by_two_and_resizes_when_widths_do_not_divide():
    module, x = edge("tf1", 3), noise((28, 28))  # level 2 of a 112 pixel picture, but 5 wide below
    assert module.down is not None
    y = max_pool_same(module.down(module.squeeze(x)), 5, 2)
    assert y.shape[-2:] == (7, 7)
    y = F.interpolate(y, size=(5, 5), mode="nearest")
    torch.testing.assert_close(module(x, (5, 5)), module.expand(y))


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
@pytest.mark.parametrize("halvings", [-5, -2, 0, 1, 2, 5])
@pytest.mark.parametrize("side", [(97, 130), (1, 1), (33, 500)])
def test_any_edge_of_any_picture_arrives_at_the_asked_size(flavor: str, halvings: int, side):
    from_level = 2 if halvings > 0 else 7
    parent, child = (
        tuple(-(-s // 2**level) for s in side) for level in (from_level, from_level + halvings)
    )
    module = edge(flavor, halvings)
    assert module(noise(parent), child).shape == (2, 5, *child)


def test_tensorflow_tpu_does_not_pool_at_a_ratio_between_two_and_three():
    module, x = edge("tf1", 2), noise((5, 5))  # levels 3 and 5 of a 33 pixel picture: 5 and 2 wide
    assert module.down is not None
    y = F.interpolate(module.down(module.squeeze(x)), size=(2, 2), mode="nearest")
    torch.testing.assert_close(module(x, (2, 2)), module.expand(y))
