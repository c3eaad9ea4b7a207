"""A study drawn: the committed figure is that of the stored runs, and mistakes are one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.figure import figure
from experiments.store import Store
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study
from experiments.tables import Report, make_report

ROOT = Path(__file__).parents[2]
STORED = ROOT / "results" / "embedded"


@pytest.fixture(scope="module")
def ladder() -> Report:
    study, profile = load_study("ladder"), load_profile("embedded")
    grid = cells(study, Selection(profile=profile, seeds=profile.seeds))
    return make_report(study, grid, Store(STORED))


def test_the_figure_in_the_readme_is_that_of_the_stored_runs(run, tmp_path):
    code, out, _ = run("table", "ladder", "--runs", STORED, "--figure", tmp_path / "ladder.svg")
    assert code == 0
    assert out.startswith("drawn to ")
    committed = ROOT / "docs" / "figures" / "ladder.svg"
    assert (tmp_path / "ladder.svg").read_text() == committed.read_text()
    assert "docs/figures/ladder.svg" in (ROOT / "README.md").read_text()


def test_each_variant_has_its_mean_its_interval_and_its_multiply_adds(ladder):
    left, right = figure(ladder).axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [row.variant.label for row in ladder.rows]
    for place, (row, bars) in enumerate(zip(ladder.rows, left.containers, strict=True)):
        found = row.measured["AP"]
        point, _, (interval,) = bars
        assert (point.get_xdata()[0], point.get_ydata()[0]) == (found.mean, place)
        (low, _), (high, _) = interval.get_segments()[0]
        assert (low, high) == pytest.approx((found.low, found.high))
    counted = [bar.get_width() for bar in right.containers[0]]
    assert counted == [row.full.macs_b for row in ladder.rows]


def test_what_is_printed_stands_open_beside_what_is_measured(ladder):
    left, right = figure(ladder).axes
    for axes, metric, look in ((left, "AP", "none"), (right, "macs_b", "#e69f00")):
        (marks,) = [line for line in axes.lines if line.get_label() == "printed"]
        printed = [(p.value, i) for i, row in enumerate(ladder.rows) if (p := row.paper(metric))]
        assert list(zip(*marks.get_data(), strict=True)) == printed
        assert marks.get_markerfacecolor() == look
    legend = {text.get_text() for text in left.get_legend().get_texts()}
    assert legend == {"measured", "printed"}


def test_a_variant_that_has_not_run_keeps_its_line_and_says_so(ladder, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: ladder\nvariants:\n"
        "  wider: {from: spinenet-49, times: {model.backbone.width: 1.4}}\n"
        "  fish: {unpublished: its connections, paper: {AP: {value: 37.5, source: table}}}\n"
    )
    study, profile = load_study(str(file)), load_profile("embedded")
    grid = cells(study, Selection(profile=profile, seeds=1))
    left, right = figure(make_report(study, grid, Store(STORED))).axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[-3:] == ["+ scaling (SpineNet-96)", "wider", "fish"]
    told = {text.get_position()[1]: text.get_text() for text in left.texts}
    assert told == {5: "not run", 6: "unpublished"}
    assert [bar.get_width() > 0 for bar in right.containers[0]] == [True] * 6 + [False]


def test_a_study_without_runs_says_so(ladder):
    with pytest.raises(UserError, match="ladder: no run of profile embedded to draw"):
        figure(replace(ladder, rows=tuple(replace(row, measured={}) for row in ladder.rows)))


def test_one_seed_is_drawn_without_an_interval(ladder):
    row = ladder.rows[0]
    alone = replace(row.measured["AP"], half=None)
    drawn = figure(replace(ladder, rows=(replace(row, measured={"AP": alone}),)))
    point, _, (interval,) = drawn.axes[0].containers[0]
    (low, _), (high, _) = interval.get_segments()[0]
    assert low == high == alone.mean
    assert point.get_markerfacecolor() == "none"


def test_another_ending_is_one_line(run, tmp_path):
    code, _, err = run("table", "--runs", STORED, "--figure", tmp_path / "ladder.gif")
    assert code == 2
    assert "use .svg or .png" in err
