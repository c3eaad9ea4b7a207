"""Figures hold what the genotype says, and the same genotype gives the same file."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon
from PIL import Image
from strategies import genotypes

from spinenet.comparison import edges
from spinenet.drawing import KINDS, RED, draw, draw_difference, save
from spinenet.edge_routing import BERNSTEIN
from spinenet.genotype import EXPANSION, BlockSpec, Genotype, load, shipped

DEAD = Genotype(
    name="loose end",
    stem=(2, 2),
    blocks=(BlockSpec(5, "residual", (0, 1)), BlockSpec(3, "bottleneck", (0, 1), True)),
)


def blocks(axes: Axes) -> list[Polygon]:
    return [p for p in axes.patches if type(p) is Polygon]


def arrows(axes: Axes) -> list[FancyArrowPatch]:
    return [p for p in axes.patches if isinstance(p, FancyArrowPatch)]


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def curve(arrow: FancyArrowPatch) -> np.ndarray:
    return np.asarray(arrow._path_original.vertices)


def in_colour(patches: list) -> list[bool]:
    """Which of the blocks or arrows are not pale."""
    return [patch.get_facecolor()[3] == 1 and patch.get_alpha() in (None, 1) for patch in patches]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_kind_of_block_can_be_drawn():
    assert set(EXPANSION) <= set(KINDS)


@given(genotype=genotypes(max_inner=4))
@settings(max_examples=10, deadline=None)
def test_any_genotype_is_drawn_with_every_block_and_edge_in_its_place(genotype: Genotype):
    (axes,) = draw(genotype).axes
    drawn = blocks(axes)
    assert len(drawn) == len(genotype.nodes)
    for index, (node, block) in enumerate(zip(genotype.nodes, drawn, strict=True)):
        corners = block.get_xy()
        centre = (corners.max(0) + corners.min(0)) / 2
        assert centre == pytest.approx([index, node.level])
        assert (to_rgba(block.get_edgecolor())[:3] == to_rgba(RED)[:3]) == node.is_output
    assert len(arrows(axes)) == len(edges(genotype))
    bottom, top = axes.get_ylim()
    for arrow in arrows(axes):
        assert bottom < (BERNSTEIN @ curve(arrow))[:, 1].min()
        assert (BERNSTEIN @ curve(arrow))[:, 1].max() < top - 0.5  # where the title is
    assert {f"P{level}" for level in genotype.outputs} <= set(words(axes))
    assert genotype.name in words(axes)


@pytest.mark.filterwarnings("ignore:Glyph")  # a name may be in any script
@given(genotype=genotypes(max_inner=4))
@settings(max_examples=6, deadline=None)
def test_any_genotype_becomes_a_picture_of_either_format(genotype: Genotype):
    with TemporaryDirectory() as folder:
        svg, png = (Path(folder) / f"network.{ending}" for ending in ("svg", "png"))
        for path in (svg, png):
            save(draw(genotype), path)
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
        with Image.open(png) as picture:
            drawn = np.asarray(picture.convert("RGBA"))[..., 3] > 0
        assert 0.02 < drawn.mean() < 0.9


@pytest.mark.parametrize("name", shipped())
def test_no_edge_of_a_shipped_genotype_runs_through_a_block(name: str):
    (axes,) = draw(load(name)).axes
    for arrow in arrows(axes):
        inner = (BERNSTEIN @ curve(arrow))[2:-2]
        assert not any(block.get_path().contains_points(inner).any() for block in blocks(axes))


def test_the_orphan_of_spinenet_49_is_dashed_and_its_kinds_are_told_apart():
    figure = draw(load("spinenet-49"))
    (axes,) = figure.axes
    dashed = [a for a in arrows(axes) if a.get_linestyle() != "solid" and a.get_linestyle() != "-"]
    assert len(dashed) == 1
    ends = curve(dashed[0])[[0, 3]]
    assert ends[:, 0] == pytest.approx([11, 14], abs=0.4)
    assert ends[:, 1] == pytest.approx([5, 5], abs=0.3)
    kinds = [node.kind for node in load("spinenet-49").nodes]
    colours = [to_rgba(KINDS[kind].colour) for kind in kinds]
    assert [b.get_facecolor() for b in blocks(axes)] == colours
    assert legend(figure) == ["bottleneck", "residual", "output", "orphan, added as it is"]


def test_finer_maps_are_wider():
    (axes,) = draw(load("spinenet-49")).axes
    width = {
        node.level: np.ptp(block.get_xy()[:, 0])
        for node, block in zip(load("spinenet-49").nodes, blocks(axes), strict=True)
    }
    assert sorted(width, key=lambda level: -width[level]) == [2, 3, 4, 5, 6, 7]


def test_a_block_that_no_output_depends_on_is_pale_with_its_edges():
    figure = draw(DEAD)
    (axes,) = figure.axes
    assert in_colour(blocks(axes)) == [True, True, False, True]
    assert sum(in_colour(arrows(axes))) == len(edges(DEAD)) - 2
    assert "no output depends on it" in legend(figure)
    assert "no output depends on it" not in legend(draw(load("r0-sp53")))


def test_a_difference_shows_only_what_differs_in_colour():
    a = load("r0-sp53")
    changed = replace(a.blocks[-1], parents=(7, 10))
    b = replace(a, name="changed", blocks=(*a.blocks[:-1], changed))
    figure = draw_difference(a, b)
    for axes, edge in zip(figure.axes, [(9, 16), (10, 16)], strict=True):
        assert not any(in_colour(blocks(axes)))
        (differing,) = [
            x for x, shown in zip(arrows(axes), in_colour(arrows(axes)), strict=True) if shown
        ]
        assert curve(differing)[[0, 3], 0] == pytest.approx(edge, abs=0.4)
    assert [words(axes)[0] for axes in figure.axes] == ["r0-sp53", "changed"]
    assert "the same in both" in legend(figure)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_genotype_gives_the_same_bytes(tmp_path: Path, ending: str):
    files = [tmp_path / f"{k}.{ending}" for k in range(2)]
    for file in files:
        save(draw(DEAD), file)
    one, other = (file.read_bytes() for file in files)
    assert one == other
    assert b"<dc:date>" not in one


def test_a_name_is_written_as_it_is(tmp_path: Path):
    figure = draw(replace(DEAD, name="a $b$ c_d \\frac"))
    save(figure, tmp_path / "x.svg")
    assert "a $b$ c_d \\frac" in words(figure.axes[0])


@pytest.mark.parametrize("name", ["picture.gif", "picture"])
def test_another_ending_is_refused_with_the_way_out(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=r"use \.svg or \.png"):
        save(draw(DEAD), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
