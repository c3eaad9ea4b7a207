"""Committed results: they belong to today's recipes, and the documents say what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments import tables
from experiments.inspection import model_tables
from experiments.store import Store
from experiments.study import Cell, Selection, Study, cells
from experiments.study_file import load_profile, load_study

ROOT = Path(__file__).parent.parent
STORES = {name: Store(ROOT / "results" / name) for name in ("embedded", "embedded-long")}
BLOCK = re.compile(r"<!-- table: (\S+) (\S+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
LEARNING = ("r50-fpn", "r0-sp53", "spinenet-49", "spinenet-96")


def stored(study_name: str, profile: str) -> tuple[Study, list[Cell]]:
    study, size = load_study(study_name), load_profile(profile)
    return study, cells(study, Selection(profile=size, seeds=size.seeds))


@pytest.mark.parametrize("profile", STORES)
def test_every_stored_run_is_one_of_todays_recipes(profile):
    _, grid = stored("ladder", profile)
    found = {r.run_id for r in STORES[profile].results()}
    expected = {c.run_id for c in grid}
    assert found == expected if profile == "embedded" else found <= expected


@pytest.mark.parametrize("document", ["README.md", "docs/embedded.md"])
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
