"""Geometry of the charts, and what curves are made of."""

from __future__ import annotations

import itertools

import pytest

from experiments.dashboard import charts
from experiments.dashboard.charts import Line, Mark, line_chart, scatter, stairs, strip, strip_at
from experiments.dashboard.curves import _binned, mean_line


def test_a_line_reaches_from_axis_to_axis_and_up_is_more():
    chart = line_chart("t", [Line("a", [(0, 1), (10, 3)])], "step", "loss")
    start, end = (tuple(map(float, p.split())) for p in chart.path(chart.lines[0])[1:].split("L"))
    assert start[0] == charts.LEFT
    assert end[0] == charts.WIDTH - charts.RIGHT
    assert charts.TOP <= end[1] < start[1] <= charts.HEIGHT - charts.BOTTOM


def test_ticks_are_round_and_inside():
    chart = line_chart("t", [Line("a", [(0, 0.13), (977, 0.96)])], "step", "loss")
    assert [label for _, label in chart.x.ticks] == ["0", "200", "400", "600", "800"]
    assert all(charts.TOP <= at <= charts.HEIGHT - charts.BOTTOM for at, _ in chart.y.ticks)


def test_one_point_alone_can_be_drawn():
    chart = scatter("t", [Mark("1", 5.0, 40.0, "only")], "x", "y")
    assert charts.LEFT < chart.x.at(5.0) < charts.WIDTH - charts.RIGHT
    assert "only: 40 at 5" in chart.description


def test_labels_of_near_points_do_not_cover_each_other():
    marks = [Mark(str(k), 100 + k % 2, 40 + k / 50, f"m{k}") for k in range(4)]
    places = list(scatter("t", [*marks, Mark("far", 300, 60, "far")], "x", "y").places.values())
    for (x, y, _), (a, b, _) in itertools.combinations(places, 2):
        assert abs(x - a) > 9 or abs(y - b) > 11


def test_what_was_best_so_far_holds_until_something_is_better():
    points = [(1.0, 2.0), (2.0, 2.0), (3.0, 5.0), (4.0, 5.0)]
    assert stairs(points) == [(1.0, 2.0), (3.0, 2.0), (3.0, 5.0), (4.0, 5.0)]
    assert stairs(points[:1]) == [points[0], points[0]]


def test_pixels_lead_back_to_values():
    chart = line_chart("t", [Line("a", [(0, 1), (10, 3)])], "step", "loss")
    low, high, start, end = map(float, chart.y.facts.split())
    assert low + (chart.y.at(2.5) - start) / (end - start) * (high - low) == pytest.approx(
        2.5, rel=0.005
    )


def test_strips_share_an_axis_that_keeps_sign_and_order():
    values = [-200.0, -30.0, -1.0, 0.0, 1.0, 30.0, 50.0, 200.0]
    pixels = [strip_at(v) for v in values]
    assert pixels == sorted(pixels)
    assert pixels[3] == charts.STRIP_WIDTH / 2
    assert (pixels[0], pixels[-1]) == (0.0, charts.STRIP_WIDTH)
    drawn = strip(2.0, -1.0, 5.0, None, 1.0)
    assert drawn.low is not None
    assert drawn.high is not None
    assert drawn.low < drawn.zero < drawn.effect < drawn.high
    assert drawn.description == "effect +2.0, from −1.0 to +5.0"


def test_a_mean_over_seeds_has_their_spread_and_goes_as_far_as_the_longest():
    line = mean_line("v", [[(0, 1.0), (10, 3.0), (20, 5.0)], [(0, 3.0), (10, 5.0)], []])
    assert line is not None
    assert line.points == [(0, 2.0), (10, 4.0), (20, 5.0)]
    assert line.band == [(0, 1.0, 3.0), (10, 3.0, 5.0), (20, 5.0, 5.0)]
    assert line.note == "2 seeds"
    assert mean_line("v", [[], []]) is None


def test_a_long_curve_becomes_a_short_one_with_the_same_end():
    points = [(float(k), float(k)) for k in range(1000)]
    short = _binned(points)
    assert 60 <= len(short) <= 120
    assert short[-1][0] == 999
    assert short[0] == (8.0, 4.0)
