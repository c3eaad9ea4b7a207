"""Two runs beside each other, where the pages are served."""

from __future__ import annotations

import pytest

from experiments.dashboard.site import Site
from tests.experiments.dashboard.conftest import STORES
from tests.experiments.dashboard.reading import read, row_of
from tests.experiments.dashboard.test_pages import SCRIPT, page

PAIR = "compare/e53b5811f1f0-b6e7c85b642f"


def test_two_runs_are_compared_where_they_are_served(site):
    live = Site(STORES, is_live=True)
    parsed = page(live, f"{PAIR}.html")
    for name in ("AP", "AP50", "MACs M"):
        row = row_of(parsed, "Metrics on validation in percent, size and speed", name)
        a, b, more = (float(row[k].words.replace("−", "-")) for k in ("A", "B", "B − A"))
        assert more == pytest.approx(b - a, abs=0.0101)
    found = [live.view().snapshot.runs[i].record.result for i in PAIR[8:].split("-")]
    row = row_of(parsed, "Metrics on validation in percent, size and speed", "AP")
    assert [row[k].words for k in "AB"] == [f"{result.metrics['AP']:.2f}" for result in found]
    assert "model.backbone.kind" in parsed.words
    assert {f.words.partition(" ")[0] for f in parsed.all("figcaption")} >= {"loss"}
    assert not parsed.all("img")  # a ResNet has no genotype to be drawn beside the other
    assert site.page(f"{PAIR}.html") is None  # an export would have to have all pairs


def test_two_networks_are_drawn_against_each_other():
    live = Site(STORES, is_live=True)
    path = "compare/797ba2132d9c-b6e7c85b642f"
    (drawing,) = page(live, f"{path}.html").all("img")
    assert drawing.attributes["src"] == f"/{path}.svg"
    drawn = live.page(f"{path}.svg")
    assert drawn is not None
    assert drawn.content_type == "image/svg+xml"
    assert live.page(f"{PAIR}.svg") is None


@pytest.mark.parametrize("pair", ["0" * 12 + "-b6e7c85b642f", "b6e7c85b642f", "x-y", ""])
def test_only_complete_runs_are_compared(pair):
    assert Site(STORES, is_live=True).page(f"compare/{pair}.html") is None


def test_names_of_compared_runs_stay_text(write, tmp_path):
    odd = SCRIPT.replace("/", " ")
    write("a" * 12, name=odd, by_class={SCRIPT: 5.0})
    write("b" * 12, name=f"{odd}-b")
    found = Site([tmp_path], is_live=True).page(f"compare/{'a' * 12}-{'b' * 12}.html")
    assert found is not None
    assert b"<script>alert" not in found.body
    assert SCRIPT in read(found.body).text
