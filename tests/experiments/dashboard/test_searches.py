"""The pages of searches: every candidate with what became of it, and searches side by side."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from experiments.dashboard import search_page
from experiments.dashboard.searches import Searches, _named
from experiments.dashboard.site import Site
from experiments.leases import lock
from experiments.search.asynchronous import make_search, replayed
from experiments.search.candidates import Search
from experiments.search.config import SearchConfig, keep_settings
from experiments.search.finals import SEEDS, finals
from experiments.search.findings import findings
from experiments.search.report import best_so_far, front, standings
from experiments.snapshot import Lookout
from experiments.store import Failure, Store, write_failure
from tests.experiments.dashboard.conftest import EVOLVED, FISH, carry_out, end
from tests.experiments.dashboard.reading import Element, read, row_of
from tests.experiments.dashboard.test_pages import SCRIPT, page
from tests.experiments.search_helpers import carried_out

CANDIDATES = "Every network that was asked for, in order"


def rows(parsed: Element) -> list[dict[str, Element]]:
    """The candidates' table, a row by column each."""
    table = next(t for t in parsed.all("table") if t.all("caption")[0].words == CANDIDATES)
    columns = [th.words for th in table.all("thead")[0].all("th")]
    lines = table.all("tbody")[0].all("tr")
    return [dict(zip(columns, line.children, strict=True)) for line in lines]


def site_of(root, **given) -> Site:
    return Site([root / "runs"], searches=[root / "searches"], **given)


@pytest.fixture
def whole(tmp_path, a_result) -> Search:
    """A search that is complete, under tmp_path."""
    return carry_out(tmp_path, "mine", FISH, a_result)


def test_every_candidate_is_there_with_its_reward_and_leads_to_its_run(whole, tmp_path):
    shown = rows(page(site_of(tmp_path), "search/mine.html"))
    assert [int(row["sample"].words) for row in shown] == list(range(FISH.samples))
    on_front = {one.number for one in front(standings(whole.tried))}
    for row, tried in zip(shown, whole.tried, strict=True):
        assert row["AP"].words == f"{tried.reward:.2f}"
        (link,) = row["network"].all("a")
        assert link.attributes["href"] == f"../run/{tried.candidate.cell.run_id}.html"
        assert link.words == tried.candidate.genotype.name
        assert (row["note"].words != "") == (tried.candidate.number in on_front)
        levels = "".join(str(block.level) for block in tried.candidate.genotype.blocks)
        assert row["levels in order"].words == levels


def test_the_best_is_named_and_drawn(whole, tmp_path):
    site = site_of(tmp_path)
    parsed, best = page(site, "search/mine.html"), standings(whole.tried)[0]
    assert f"AP {best.reward:.2f} at" in parsed.words
    assert f"Best so far: {best.name}" in [h.words for h in parsed.all("h2")]
    drawn = site.page("search/mine.svg")
    assert drawn is not None
    assert drawn.content_type == "image/svg+xml"
    assert drawn.body.count(b"<path") > 50


def test_the_curve_is_the_best_so_far(whole, tmp_path):
    parsed = page(site_of(tmp_path), "search/mine.html")
    (chart,) = (f for f in parsed.all("figure") if "AP of each sample" in f.words)
    assert f"best so far ends at {best_so_far(whole.tried)[-1]:.4g}" in chart.words
    assert len([c for c in chart.all("circle") if c.attributes["class"] == "dot"]) == FISH.samples


def test_a_candidates_run_leads_back_to_its_search(whole, tmp_path):
    sample = whole.tried[3].candidate
    parsed = page(site_of(tmp_path), f"run/{sample.cell.run_id}.html")
    assert parsed.all("h1")[0].words == "mine, sample 3"
    links = {a.words: a.attributes["href"] for a in parsed.all("a")}
    assert links["search mine, sample 3"] == "../search/mine.html"
    assert "of no study" not in parsed.words
    blocks = next(t for t in parsed.all("table") if "Genotype" in t.all("caption")[0].words)
    assert len(blocks.all("tbody")[0].all("tr")) == len(sample.genotype.nodes)


def test_an_export_draws_the_networks_that_no_cheaper_one_beats(whole, tmp_path):
    site, best = site_of(tmp_path), {one.run_id for one in front(standings(whole.tried))}
    drawn = {path[4:-4] for path in site.paths() if re.fullmatch(r"run/.*\.svg", path)}
    assert drawn == best
    assert len(best) < FISH.samples
    for run_id in (one.run_id for one in standings(whole.tried)):
        images = [i.attributes["src"] for i in page(site, f"run/{run_id}.html").all("img")]
        assert images == ([f"../run/{run_id}.svg"] if run_id in best else [])
        served = page(site_of(tmp_path, is_live=True), f"run/{run_id}.html")
        assert [i.attributes["src"] for i in served.all("img")] == [f"/run/{run_id}.svg"]


def test_searches_are_compared_after_as_many_samples(searched, site):
    evolved, by_chance = (
        replayed(searched / "searches" / name, Store(searched / "runs"))
        for name in ("evolved", "by-chance")
    )
    fewest = len(evolved.tried)
    assert 0 < fewest < FISH.samples == len(by_chance.tried)
    parsed = page(site, "searches.html")
    for search, name in ((by_chance, "by-chance"), (evolved, "evolved")):
        row = row_of(parsed, "2 searches", name)
        best = best_so_far(search.tried)
        assert row["samples"].words == f"{len(search.tried)} of {FISH.samples}"
        assert row["best AP"].words == f"{best[-1]:.2f}"
        assert row[f"best of {fewest}"].words == f"{best[fewest - 1]:.2f}"
    (chart,) = parsed.all("figure")
    assert {li.words for li in chart.all("li")} == {"evolution 1 seed", "random 1 seed"}


def test_searches_of_different_spaces_are_not_set_beside_each_other(tmp_path, a_result):
    carry_out(tmp_path, "mine", FISH, a_result, ends=2)
    carry_out(tmp_path, "other", replace(FISH, space="hourglass"), a_result, ends=2)
    parsed = page(site_of(tmp_path), "searches.html")
    heads = [h.words for h in parsed.all("h2")]
    assert heads == ["fish, profile smoke", "hourglass, profile smoke"]
    assert not [th for th in parsed.all("th") if th.words.startswith("best of")]


def test_what_becomes_of_candidates_is_followed(tmp_path, a_result):
    search = carry_out(tmp_path, "mine", FISH, a_result, ends=3)
    site, store = site_of(tmp_path), search.store
    waiting = [s.cell for s in search.asked[len(search.tried) :]]
    assert len(waiting) == FISH.lag
    states = [row["state"].words for row in rows(page(site, "search/mine.html"))]
    assert states == ["✓ complete"] * 3 + ["… waiting"] * 2
    with lock(store.folder(waiting[0].run_id, waiting[0].recipe.name)):
        words = page(site, "search/mine.html").words
        assert "▸ running" in words
        assert "search mine" in site.news()[0]
    failed = store.folder(waiting[1].run_id, waiting[1].recipe.name)
    write_failure(failed, Failure("NonFiniteLossError", "no"))
    end(store, waiting[0], a_result)
    after = rows(page(site, "search/mine.html"))
    assert after[3]["state"].words == "✓ complete"
    assert after[4]["state"].words.startswith("✗ failed")
    assert after[4]["AP"].words == "0.00"
    assert len(after) == 5 + FISH.lag  # the controller was asked for the next ones


def test_a_search_without_a_barrier_is_followed(tmp_path, a_result):
    free = replace(FISH, mode="asynchronous")
    carry_out(tmp_path, "mine", free, a_result, ends=3)
    site = site_of(tmp_path)
    told = [row["state"].words for row in rows(page(site, "search/mine.html"))]
    assert "✓ complete" in told
    carry_out(tmp_path, "mine", free, a_result)
    states = [row["state"].words for row in rows(page(site, "search/mine.html"))]
    assert states == ["✓ complete"] * FISH.samples


def out_of_order(folder, a_result, ends: int | None = None) -> Search:
    """A search without a barrier whose four workers end in any order."""
    config = replace(EVOLVED, mode="asynchronous")
    keep_settings(folder / "searches" / "mine", config)
    search = make_search(config, Store(folder / "runs"), folder / "searches" / "mine")
    ending = partial(end, like=a_result)
    carried_out(search, 4, np.random.default_rng(0), stop_after=ends, end=ending)
    return search


def test_without_a_barrier_each_reward_stands_beside_its_network(tmp_path, a_result):
    search = out_of_order(tmp_path, a_result)
    order = [tried.candidate.number for tried in search.tried]
    assert order != sorted(order)
    parsed = page(site_of(tmp_path), "search/mine.html")
    rewards = {tried.candidate.number: tried.reward for tried in search.tried}
    for row in rows(parsed):
        assert row["AP"].words == f"{rewards[int(row['sample'].words)]:.2f}"
    assert "it learns of each sample as its run ends" in parsed.words
    best = standings(search.tried)[0]
    assert f"Best so far: {best.name}" in [h.words for h in parsed.all("h2")]
    assert f"AP {best.reward:.2f} at" in parsed.words
    view = site_of(tmp_path).view()
    samples = view.searches["mine"].samples
    assert [samples[number].told for number in order] == list(range(1, EVOLVED.samples + 1))
    charts = {
        chart.title: chart for chart in search_page.search(view, view.searches["mine"])[1]["charts"]
    }
    climb = best_so_far(search.tried)
    for dot in charts["AP of each sample"].dots:
        assert dot.y <= climb[int(dot.x) - 1]


def test_a_run_that_ends_during_a_look_does_not_damage_its_search(tmp_path, a_result):
    search = out_of_order(tmp_path, a_result, ends=7)
    lookout, searches = Lookout([tmp_path / "runs"], [tmp_path / "searches"]), Searches()
    before, told = lookout.look(), len(search.tried)
    carried_out(search, 4, np.random.default_rng(1), end=partial(end, like=a_result))
    found, damaged = searches.look(before)
    assert damaged == {}
    assert len(found["mine"].tried) == told < EVOLVED.samples
    found, damaged = searches.look(lookout.look())
    assert len(found["mine"].tried) == EVOLVED.samples


def test_the_network_on_the_page_is_the_one_that_is_exported(whole, tmp_path, a_result):
    best = standings(whole.tried)[:3]
    for rank, cell in enumerate(finals(whole, best)):
        end(whole.store, cell, a_result, ap=float(rank // SEEDS))
    site, chosen = site_of(tmp_path), best[2]
    parsed = page(site, "search/mine.html")
    assert f"Best by other seeds: {chosen.name}" in [h.words for h in parsed.all("h2")]
    again = {int(row["sample"].words): row["again"].words for row in rows(parsed)}
    assert again == dict.fromkeys(range(FISH.samples), "") | {
        one.number: f"{rank:.2f}" for rank, one in enumerate(best)
    }
    kept = findings("mine", whole, tmp_path / "searches" / "mine").chosen
    shown = site.view().searches["mine"].genotype
    assert kept is not None
    assert shown.content() == whole.asked[kept.number].genotype.content()
    assert row_of(page(site, "searches.html"), "1 search", "mine")["chosen, again"].words == "2.00"


def test_a_run_that_is_gone_is_asked_for_again(whole, tmp_path):
    site = site_of(tmp_path)
    page(site, "search/mine.html")
    (whole.store.find(whole.tried[5].candidate.cell.run_id) / "result.json").unlink()
    shown = rows(page(site, "search/mine.html"))
    assert len(shown) == 5 + FISH.lag
    assert shown[5]["AP"].words == ""


def test_more_samples_are_taken_up(whole, tmp_path):
    site = site_of(tmp_path)
    assert "12 of 12 samples" in page(site, "search/mine.html").words
    keep_settings(tmp_path / "searches" / "mine", replace(FISH, samples=20))
    assert "12 of 20 samples" in page(site, "search/mine.html").words


def test_a_search_before_its_first_run(tmp_path):
    keep_settings(tmp_path / "searches" / "mine", FISH)
    site = site_of(tmp_path)
    parsed = page(site, "search/mine.html")
    assert site.page("search/mine.svg") is None
    assert "No sample has been trained yet" in parsed.words
    assert "0 of 12 samples" in parsed.words
    assert len(rows(parsed)) == FISH.lag
    assert "0 of 12" in page(site, "searches.html").words
    assert "No search yet" in page(Site([tmp_path / "runs"]), "searches.html").words


def test_a_search_that_cannot_be_read_hides_no_other(whole, tmp_path):
    texts = {
        "cut": '{"space": "fi',
        "odd": '{"space": "fsh"}',
        "less": '{"seed": -1}',
        "list": "[1]",
    }
    for name, text in texts.items():
        folder = tmp_path / "searches" / name
        folder.mkdir()
        (folder / "search.json").write_text(text)
    site = site_of(tmp_path)
    for path in ("index.html", "searches.html"):
        words = page(site, path).words
        for name in texts:
            assert f"✗ damaged {name}:" in words, path
        assert str(tmp_path) not in words
    assert site.page("search/mine.html") is not None
    assert site.page("search/cut.html") is None


def test_what_a_search_is_called_stays_text(tmp_path, a_result):
    name = SCRIPT.replace("/", " ")
    carry_out(tmp_path, name, FISH, a_result, ends=2)
    site = site_of(tmp_path)
    (path,) = (p for p in site.paths() if p.startswith("search/") and p.endswith(".html"))
    assert re.fullmatch(r"search/[A-Za-z0-9._-]+\.html", path)
    for shown in (path, "searches.html", "index.html"):
        found = site.page(shown)
        assert found is not None
        assert b"<script>alert" not in found.body
        assert len(read(found.body).all("script")) == 1
        assert name in read(found.body).text


def test_folders_that_differ_in_signs_alone_have_pages_of_their_own(tmp_path):
    names = ["a b", "a-b", "A b", "a-b-2", "<>"]
    paths = [path for _, path in _named([tmp_path / name for name in names])]
    assert paths == ["a-b", "a-b-2", "A-b-3", "a-b-2-2", "search"]


def test_the_settings_of_a_search_are_on_its_page(tmp_path):
    config = SearchConfig(space="spinenet", controller="policy", samples=4, macs_m=150.0, seed=3)
    keep_settings(tmp_path / "searches" / "mine", config)
    (tmp_path / "searches" / "mine" / "search.json").write_text(json.dumps(config.__dict__))
    words = page(site_of(tmp_path), "search/mine.html").words
    assert "space spinenet by the controller policy, seed 3" in words
    assert "networks over 150 M multiply-adds are not trained" in words
