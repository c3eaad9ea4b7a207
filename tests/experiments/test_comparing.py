"""Two runs or two studies side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from experiments.comparing import compare
from experiments.errors import UserError
from experiments.statistics import welch
from experiments.store import Store

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def two_runs() -> list[str]:
    found = {r.name: r.run_id for r in Store(RESULTS / "embedded").results()}
    return [found["r50-fpn-digits-s0"], found["spinenet-49-digits-s0"]]


def test_two_runs_line_by_line(two_runs):
    store = Store(RESULTS / "embedded")
    a, b = (store.result(i) for i in two_runs)
    found = compare(*two_runs, RESULTS / "embedded")
    line = next(line for line in found.lines if line.name == "AP")
    assert line.gain.mean == pytest.approx(b.metrics["AP"] - a.metrics["AP"])
    assert line.gain.half is None
    assert any(key.startswith("model.backbone") for key in found.recipe)


def test_a_folder_names_a_run_as_its_id_does(two_runs):
    folder = Store(RESULTS / "embedded").find(two_runs[0])
    assert compare(str(folder), two_runs[1], RESULTS / "embedded") == compare(
        *two_runs, RESULTS / "embedded"
    )


def test_a_study_against_itself_gains_nothing():
    found = compare("ladder", "ladder@embedded", RESULTS / "embedded")
    assert len(found.lines) == 5
    assert all(line.gain.mean == 0 and line.gain.half > 0 for line in found.lines)
    assert found.recipe == {}


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("lader", "ladder", "did you mean 'ladder'"),
        ("ladder@smoke", "ladder", "no finished run"),
        ("ladder@embeded", "ladder", "did you mean 'embedded'"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, told):
    with pytest.raises(UserError, match=told):
        compare(a, b, RESULTS / "embedded")


def test_a_run_is_not_compared_with_a_study(two_runs):
    with pytest.raises(UserError, match="two of a kind"):
        compare(two_runs[0], "ladder", RESULTS / "embedded")


def test_welch_is_scipys():
    a, b = [3.1, 2.8, 4.0, 3.3], [1.0, 2.5, 1.7]
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    ours = welch(a, b)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_the_command_prints_json(run, two_runs):
    _, out, _ = run("compare", *two_runs, "--runs", str(RESULTS / "embedded"), "--json")
    found = json.loads(out)
    assert {line["name"] for line in found["lines"]} >= {"AP", "MACs M"}
