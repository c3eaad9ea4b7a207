"""Random valid genotypes, for the property tests."""

from hypothesis import strategies as st

from spinenet.genotype import BOTTLENECK, RESIDUAL, BlockSpec, Genotype

KINDS = st.sampled_from([BOTTLENECK, RESIDUAL])


@st.composite
def genotypes(draw: st.DrawFn, *, max_inner: int = 6) -> Genotype:
    """A stem that climbs at most to level 4, up to `max_inner` inner blocks, up to five outputs.

    Every block takes one to three distinct earlier blocks; outputs have distinct levels and may be
    parents of later blocks, and blocks that nobody reads do occur.
    """
    climbs = draw(st.lists(st.integers(0, 1), max_size=3))
    stem = [2]
    for climb in climbs:
        stem.append(min(stem[-1] + climb, 4))
    inner = draw(st.lists(st.integers(2, 7), max_size=max_inner))
    outputs = draw(st.lists(st.integers(2, 7), min_size=1, max_size=5, unique=True))
    rows = [(level, False) for level in inner] + [(level, True) for level in outputs]
    blocks = []
    for index, (level, is_output) in enumerate(rows, start=len(stem)):
        earlier = st.integers(0, index - 1)
        parents = draw(st.lists(earlier, min_size=1, max_size=min(3, index), unique=True))
        blocks.append(BlockSpec(level, draw(KINDS), tuple(parents), is_output))
    name = draw(st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=12))
    return Genotype(name=name, stem=tuple(stem), blocks=tuple(blocks), source=name[::-1])
