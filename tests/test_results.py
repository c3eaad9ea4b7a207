"""Committed results: they belong to today's recipes, and the documents say what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments import tables
from experiments.inspection import model_tables
from experiments.search import documents
from experiments.search.contest import CONTESTS, Contest, is_of
from experiments.search.figures import contest_figure, found_figure, proxy_figure
from experiments.search.findings import read_all
from experiments.search.stored import read as read_stored
from experiments.search.table import plan, read
from experiments.store import Store
from experiments.study import Cell, Selection, Study, cells
from experiments.study_file import load_profile, load_study, shipped_studies
from spinenet.drawing import draw, save
from spinenet.genotype import load
from spinenet.search.graph_hash import graph_hash

ROOT = Path(__file__).parent.parent
STORES = {name: Store(ROOT / "results" / name) for name in ("embedded", "embedded-long")}
FOUND = ROOT / "results" / "search" / "found"
TABLE = ROOT / "results" / "search" / "table.json"
BLOCK = re.compile(r"<!-- table: (\S+) (\S+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
LEARNING = ("r50-fpn", "r0-sp53", "spinenet-49", "spinenet-96")


def stored(study_name: str, profile: str) -> tuple[Study, list[Cell]]:
    study, size = load_study(study_name), load_profile(profile)
    return study, cells(study, Selection(profile=size, seeds=size.seeds))


@pytest.mark.parametrize("profile", STORES)
def test_every_stored_run_is_one_of_todays_recipes(profile):
    _, ladder = stored("ladder", profile)
    asked = {cell.run_id for name in shipped_studies() for cell in stored(name, profile)[1]}
    found = {r.run_id for r in STORES[profile].results()}
    assert found <= asked
    if profile == "embedded":
        assert {cell.run_id for cell in ladder} <= found


def test_the_page_of_ablations_has_every_study():
    page = (ROOT / "docs" / "ablations.md").read_text()
    assert sorted(name for name, _, _ in BLOCK.findall(page)) == sorted(shipped_studies())


@pytest.mark.parametrize("document", ["README.md", "docs/embedded.md", "docs/ablations.md"])
def test_the_tables_in_the_documents_are_those_of_the_stored_runs(document):
    blocks = BLOCK.findall((ROOT / document).read_text())
    assert blocks
    for study_name, profile, text in blocks:
        study, grid = stored(study_name, profile)
        report = tables.make_report(study, grid, STORES[profile])
        assert text.strip() == tables.to_markdown(report).strip()


def test_the_page_of_counts_says_what_the_networks_count():
    page = (ROOT / "docs" / "counts.md").read_text()
    block = page.partition("<!-- table: models -->")[2].partition("<!-- end -->")[0]
    assert block.strip() == "\n".join(t.markdown() for t in model_tables()).strip()
    assert "unresolved" not in block


@pytest.mark.parametrize(("profile", "learned"), [("embedded", 20), ("embedded-long", 40)])
def test_every_variant_with_connections_learned(profile, learned):
    study, grid = stored("ladder", profile)
    report = tables.make_report(study, grid, STORES[profile])
    found = {r.variant.id: r.measured["AP"].mean for r in report.rows if r.measured}
    assert all(found[name] >= learned for name in LEARNING)


def test_no_path_of_a_machine_is_in_the_results():
    for path in (ROOT / "results").rglob("*.json"):
        assert not re.search(r'"(/|~|[A-Z]:\\)', path.read_text()), path


@pytest.mark.parametrize("name", ["spinenet-49", "r0-sp53", "found"])
def test_a_network_is_drawn_as_it_is(name, tmp_path):
    save(draw(load(name)), tmp_path / "drawn.svg")
    figure = ROOT / "docs" / "figures" / f"{name}.svg"
    assert figure.read_bytes() == (tmp_path / "drawn.svg").read_bytes()


class TestSearch:
    PAGE = (ROOT / "docs" / "search.md").read_text()
    FIGURES = ROOT / "docs" / "figures"

    def block(self, name: str) -> str:
        return (
            self.PAGE.partition(f"<!-- table: {name} -->")[2].partition("<!-- end -->")[0].strip()
        )

    def test_the_page_has_the_spaces_as_they_are(self):
        spaces = tables.markdown(documents.SPACES_HEADER, documents.spaces_rows())
        assert self.block(documents.SPACES_BLOCK) == spaces

    @pytest.mark.parametrize("name", CONTESTS)
    def test_the_page_and_the_figures_have_the_contests_as_they_were_held(self, name, tmp_path):
        held = read_stored(ROOT / "results" / "search" / f"{name}.json", Contest, "")
        assert self.block(documents.CONTEST_BLOCKS[name]) == documents.contest_markdown(name, held)
        figure = self.FIGURES / f"search-{name}.svg"
        assert figure.is_file() == (held is not None) == (f"(figures/{figure.name})" in self.PAGE)
        if held is not None:
            save(contest_figure(held), tmp_path / figure.name)
            assert (tmp_path / figure.name).read_text() == figure.read_text()

    def test_the_page_and_the_figure_have_the_table_as_it_is(self, tmp_path):
        table = read(TABLE)
        assert self.block(documents.PROXY_BLOCK) == documents.proxy_markdown(table)
        figure = self.FIGURES / "search-proxy.svg"
        assert figure.is_file() == (table is not None) == (f"(figures/{figure.name})" in self.PAGE)
        if table is not None:
            save(proxy_figure(table), tmp_path / figure.name)
            assert (tmp_path / figure.name).read_text() == figure.read_text()

    @pytest.mark.skipif(read(TABLE) is None, reason="no table is stored")
    def test_the_tables_runs_are_of_todays_recipes(self):
        table = read(TABLE)
        today = {entry.cell.run_id for entry in plan(table.config, TABLE).entries}
        assert {run.run_id for run in table.runs} <= today

    def test_a_replay_is_of_the_table_that_is_stored(self):
        held = read_stored(ROOT / "results" / "search" / "replay.json", Contest, "")
        table = read(TABLE)
        assert held is None or (table is not None and is_of(held, table))

    def test_the_network_that_a_search_chose_is_shipped_under_its_name(self):
        for one in read_all(FOUND):
            assert one.chosen.name == f"{one.config.space}-{graph_hash(load(one.name))[:8]}"

    def test_the_page_and_the_figure_have_what_searches_found(self, tmp_path):
        found = read_all(FOUND)
        assert self.block(documents.FOUND_BLOCK) == documents.found_markdown(found)
        figure = self.FIGURES / "search-found.svg"
        assert figure.is_file() == bool(found) == (f"(figures/{figure.name})" in self.PAGE)
        if found:
            save(found_figure(found), tmp_path / figure.name)
            assert (tmp_path / figure.name).read_text() == figure.read_text()
