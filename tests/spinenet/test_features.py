"""Features: what they count, against counting by hand, and blind to what is not built."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spinenet import genotype as genotypes
from spinenet.genotype import BOTTLENECK, RESIDUAL, BlockSpec, Genotype
from spinenet.search.features import NAMES, features
from spinenet.search.space import space, spaces

BLOCKS = (
    BlockSpec(3, BOTTLENECK, (0, 1)),  # 2
    BlockSpec(5, RESIDUAL, (1, 2)),  # 3
    BlockSpec(6, BOTTLENECK, (0, 1)),  # 4: nobody reads it, and output 6 takes it up
    BlockSpec(2, BOTTLENECK, (0, 2)),  # 5: nobody reads it, and nobody takes it up
    BlockSpec(4, BOTTLENECK, (2, 3), is_output=True),  # 6
    BlockSpec(3, BOTTLENECK, (0, 6), is_output=True),  # 7
    BlockSpec(5, BOTTLENECK, (3, 7), is_output=True),  # 8
    BlockSpec(6, BOTTLENECK, (3, 8), is_output=True),  # 9
    BlockSpec(7, BOTTLENECK, (3, 9), is_output=True),  # 10
)
NETWORK = Genotype("by hand", (2, 2), BLOCKS)


def named(genotype: Genotype) -> dict[str, float]:
    return dict(zip(NAMES, features(genotype), strict=True))


def test_they_are_what_one_counts_by_hand():
    found = named(NETWORK)
    assert [found[f"blocks at {level}"] for level in range(2, 8)] == [0, 2, 1, 2, 2, 1]
    assert [found[f"residual blocks at {level}"] for level in range(2, 8)] == [0, 0, 0, 1, 0, 0]
    assert (found["blocks not built"], found["blocks merged into outputs"]) == (1, 1)
    assert [found[f"place of output {level}"] for level in range(3, 8)] == [5, 4, 6, 7, 8]
    assert found["least depth of output 3"] == 2  # the first block of the stem, and itself
    assert found["depth of output 7"] == 9  # 0 1 2 3 6 7 8 9 10
    assert found["least resampling of output 3"] == 1  # from level 2 to 3
    assert found["least resampling of output 4"] == 2
    assert found["edges by +4 levels"] == 2  # of block 4
    assert found["furthest reach of edges"] == 7
    assert found["stem blocks"] == 2


def test_edges_are_all_counted():
    found = named(NETWORK)
    assert sum(v for name, v in found.items() if name.startswith("edges by")) == 2 * 8


def test_work_goes_with_the_kind_and_the_level():
    work = named(NETWORK)["work"]
    residual = replace(NETWORK, blocks=(replace(BLOCKS[0], kind=RESIDUAL), *BLOCKS[1:]))
    assert named(residual)["work"] == pytest.approx(work + (18 - 17) * 4 / 4)
    coarser = replace(NETWORK, blocks=(replace(BLOCKS[0], level=5), *BLOCKS[1:]))
    assert named(coarser)["work"] == pytest.approx(work + 17 * (16 / 64 - 4 / 4))


@pytest.mark.parametrize("name", spaces())
def test_every_network_has_them(name):
    where, rng = space(name), np.random.default_rng(0)
    rows = [features(where.decode(where.sample(rng))) for _ in range(50)]
    assert np.isfinite(rows).all()
    assert len({row.tobytes() for row in rows}) > 40


def test_the_papers_networks_differ_in_them():
    found = [features(genotypes.load(name)) for name in ("spinenet-49", "r0-sp53", "r23-sp30")]
    assert len({row.tobytes() for row in found}) == 3


def test_built_blocks_are_those_that_an_output_depends_on():
    assert NETWORK.built() == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)
    alone = replace(NETWORK, merge_orphans=False)
    assert 4 not in alone.built()
