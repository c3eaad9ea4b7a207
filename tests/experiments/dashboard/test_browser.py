"""The pages in a real browser: live while a grid runs, sorted, filtered, exported, accessible."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.dashboard.export import export
from experiments.leases import lock
from experiments.store import Failure, write_failure
from tests.experiments.dashboard.conftest import FISH, ROOT, STORES, carry_out, end
from tests.experiments.dashboard.test_outlook import begun_ladder, tell_progress
from tests.experiments.dashboard.test_server import serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

PAGES = ["index.html", "study/ladder.html", "run/b6e7c85b642f.html", "model/r0-sp53.html"]
PAGES += ["ledger.html", "runs.html", "models.html", "searches.html", "search/evolved.html"]
PATIENT_MS = 120_000


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def tab(browser) -> Iterator:
    """A page that fails its test if anything is said on the console or is not found."""
    said: list[str] = []
    context = browser.new_context()
    made = context.new_page()
    made.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("requestfailed", lambda request: said.append(f"{request.url}: {request.failure}"))
    yield made
    made.goto("about:blank")
    context.close()
    assert [line for line in said if "ERR_ABORTED" not in line] == []  # left before it came


@pytest.fixture(scope="module")
def served(searched) -> Iterator[str]:
    """The committed results and two searches, live."""
    with serving([*STORES, searched / "runs"], [searched / "searches"]) as server:
        yield server.url


@pytest.fixture(scope="module")
def pages(tmp_path_factory, site) -> Path:
    """The committed results, exported."""
    folder = tmp_path_factory.mktemp("exported")
    export(site, folder)
    return folder


def follow(tab, link) -> None:
    """Click a link and wait until its page and script are there."""
    with tab.expect_navigation(wait_until="load"):
        link.click()


def column(tab, table: str, number: int) -> list[str]:
    return tab.locator(f"{table} tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_a_table_sorts_by_number_both_ways_and_filters(tab, served):
    tab.goto(f"{served}study/ladder.html")
    head = tab.locator("#t-embedded thead th").nth(2)
    head.get_by_role("button", name="AP").click()
    means = [float(text.partition(" ")[0]) for text in column(tab, "#t-embedded", 3)]
    assert means == sorted(means)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")  # by keyboard as well
    assert [float(t.partition(" ")[0]) for t in column(tab, "#t-embedded", 3)] == means[::-1]
    tab.get_by_label("Show variants with").first.fill("r0-sp53 connection")
    assert len(column(tab, "#t-embedded", 2)) == 2
    assert tab.locator('[data-count="t-embedded"]').inner_text() == "2 of 5"


def test_a_cell_leads_to_its_runs_and_a_run_to_its_model(tab, served):
    tab.goto(f"{served}study/ladder.html")
    follow(tab, tab.locator("#t-embedded tbody tr").nth(2).locator("td.seeds a").first)
    assert tab.url.endswith("run/b6e7c85b642f.html")
    assert tab.locator("h1").inner_text() == "+ connections (R0-SP53), seed 0"
    follow(tab, tab.get_by_role("link", name="model r0-sp53"))
    assert tab.locator("h1").inner_text() == "r0-sp53"
    assert tab.locator("img").evaluate("image => image.decode().then(() => image.width)") > 100


def test_a_count_of_the_overview_opens_the_ledger_at_that_status(tab, served):
    tab.goto(served)
    line = tab.locator("tr", has_text="contradicted").filter(has_text="opposite")
    count = line.locator("td a").inner_text()
    follow(tab, line.locator("td a"))
    assert tab.url.endswith("ledger.html#status=contradicted")
    assert len(column(tab, "#ledger", 2)) == int(count)
    tab.get_by_label("Status").select_option("")
    assert len(column(tab, "#ledger", 2)) > 500


def barriers(tab) -> list[tuple[str, str]]:
    """What axe finds serious on the open page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_barrier(tab, served, scheme):
    tab.emulate_media(color_scheme=scheme)
    for path in PAGES:
        tab.goto(served + path)
        assert barriers(tab) == [], path


def test_what_runs_and_what_went_wrong_has_no_barrier_either(tab, tmp_path, write):
    write_failure(tmp_path / ("r50-" + "1" * 12), Failure("ValueError", "no", "Traceback: 7"))
    (write("2" * 12) / "result.json").write_text("{")
    running = tmp_path / ("r50-" + "3" * 12)
    with serving([tmp_path]) as server, lock(running):
        now = {"step": 5, "total": 10, "batch_size": 8, "begun": 0, "begun_at_step": 0}
        (running / "progress.json").write_text(json.dumps({**now, "updated": 1}))
        for path in ("index.html", f"run/{'1' * 12}.html", f"run/{'3' * 12}.html"):
            tab.goto(server.url + path)
            assert tab.locator("#running progress").count() == 1
            assert barriers(tab) == [], path


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_the_screen(tab, served, width):
    tab.set_viewport_size({"width": width, "height": 800})
    for path in PAGES:
        tab.goto(served + path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_export_opens_from_disk_without_a_network(tab, pages):
    asked: list[str] = []
    tab.context.set_offline(True)
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((pages / "index.html").as_uri())
    assert tab.locator("h1").inner_text() == "Overview"
    follow(tab, tab.locator("#claims tbody a").first)
    tab.get_by_label("Show variants with").first.fill("pyramid")
    follow(tab, tab.locator("#t-embedded td.seeds a").first)
    assert "run" in tab.locator(".lead").inner_text()
    assert tab.locator("#connection").inner_text() == "exported"
    assert tab.evaluate("getComputedStyle(document.body).margin") == "0px"  # the style is there
    assert {url.partition(":")[0] for url in asked} == {"file"}


GRID = """
import sys
from experiments.cli import main

if __name__ == "__main__":
    sys.argv = ["spinenet", "reproduce", "-p", "smoke", "--runs", sys.argv[1], "--jobs", "1"]
    sys.argv += ["--only", "r50-fpn", "--wandb", "disabled", "--set", "train.epochs=12"]
    main()
"""


def test_a_running_grid_is_followed_without_reloading(tab, tmp_path):
    script, runs = tmp_path / "grid.py", tmp_path / "runs"
    script.write_text(GRID)
    runs.mkdir()
    with serving([runs]) as server:
        tab.goto(f"{server.url}runs.html")
        tab.evaluate("window.neverReloaded = true")
        grid = subprocess.Popen([sys.executable, script, runs], cwd=ROOT, stderr=subprocess.PIPE)
        try:
            tab.wait_for_selector("#running progress", timeout=PATIENT_MS)
            first = tab.locator("#running progress").evaluate("bar => bar.value")
            tab.wait_for_function(
                "first => document.querySelector('#running progress')?.value > first",
                arg=first,
                timeout=PATIENT_MS,
            )
            assert "of 24" in tab.locator("#running").inner_text()
            tab.wait_for_selector("#all-runs .s-complete", timeout=PATIENT_MS)
            tab.wait_for_function("!document.querySelector('#running progress')")
            assert tab.evaluate("window.neverReloaded")
        finally:
            grid.kill()
            grid.communicate()


def test_a_page_keeps_its_order_and_filter_when_a_run_changes(tab, tmp_path, write):
    for k, name in enumerate(("a-run", "b-run", "c-other")):
        write(f"{k}" * 12, name=name)
    with serving([tmp_path]) as server:
        tab.goto(f"{server.url}runs.html")
        tab.get_by_role("button", name="run", exact=True).click()
        tab.get_by_role("button", name="run", exact=True).click()
        tab.get_by_label("Show runs with").fill("-run")
        assert column(tab, "#all-runs", 1) == ["b-run", "a-run"]
        write("3" * 12, name="d-run")
        tab.wait_for_selector("text=d-run", timeout=PATIENT_MS)
        assert column(tab, "#all-runs", 1) == ["d-run", "b-run", "a-run"]
        assert tab.evaluate("document.activeElement.dataset.filter") == "all-runs"


def test_the_ledger_is_chosen_by_table_and_the_choice_is_an_address(tab, served):
    tab.goto(f"{served}ledger.html")
    tab.get_by_label("Where").select_option("table-2")
    there = column(tab, "#ledger", 7)
    assert set(there) == {"table 2"}
    tab.get_by_label("Status").select_option("exact")
    both = column(tab, "#ledger", 2)
    assert 0 < len(both) < len(there)
    tab.goto("about:blank")
    tab.go_back()
    tab.reload()
    assert column(tab, "#ledger", 2) == both


def point_at(tab, chart, share: float) -> None:
    """Put the pointer onto a chart, so far from left to right."""
    svg = chart.locator("svg").first
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)


def test_a_curve_can_be_read_off_and_hidden(tab, served):
    tab.goto(f"{served}searches.html")
    chart = tab.locator("figure.chart").first
    point_at(tab, chart, 0.9)
    told = chart.locator(".value").all_inner_texts()
    assert len(told) == 2
    assert all(float(text) > 0 for text in told)
    assert chart.locator(".cursor").get_attribute("visibility") is None
    tab.mouse.move(0, 0)
    assert chart.locator(".value").all_inner_texts() == ["", ""]
    name = chart.get_by_role("button", name="random")
    name.click()
    assert chart.locator("path.line.off").count() == 1
    assert name.get_attribute("aria-pressed") == "false"
    name.press("Enter")
    assert chart.locator("path.line.off").count() == 0


def test_a_value_read_off_is_that_of_the_table(tab, served):
    tab.goto(f"{served}search/evolved.html")
    chart = tab.locator("figure.chart").first
    point_at(tab, chart, 0.99)
    best = max(float(text) for text in column(tab, "#candidates", 4) if text)
    assert float(chart.locator(".value").inner_text()) == pytest.approx(best, rel=0.005)
    assert chart.locator(".at").text_content() == "7"  # samples


def test_candidates_sort_and_filter_and_lead_to_their_runs(tab, served):
    tab.goto(f"{served}search/evolved.html")
    tab.get_by_label("State").select_option("complete")
    assert len(column(tab, "#candidates", 1)) == 7
    tab.get_by_role("button", name="AP", exact=True).click()
    rewards = [float(text) for text in column(tab, "#candidates", 4)]
    assert rewards == sorted(rewards)
    follow(tab, tab.locator("#candidates tbody tr:visible a").last)
    assert tab.locator("img").evaluate("image => image.decode().then(() => image.width)") > 100
    follow(tab, tab.get_by_role("link", name="search evolved"))
    assert tab.locator("h1").inner_text() == "evolved"


def test_a_search_is_followed_without_reloading(tab, tmp_path, a_result):
    search = carry_out(tmp_path, "mine", FISH, a_result, ends=2)
    with serving([tmp_path / "runs"], [tmp_path / "searches"]) as server:
        tab.goto(f"{server.url}search/mine.html")
        tab.evaluate("window.neverReloaded = true")
        assert "2 of 12 samples" in tab.locator("#page").inner_text()
        end(search.store, search.asked[2].cell, a_result)
        tab.wait_for_selector("text=3 of 12 samples", timeout=PATIENT_MS)
        assert tab.locator("#candidates tbody tr").count() == 3 + FISH.lag
        assert tab.evaluate("window.neverReloaded")


def test_how_long_it_still_takes_is_told_anew_without_reloading(tab, tmp_path, a_result):
    folder = begun_ladder(tmp_path, a_result)
    with serving([tmp_path]) as server, lock(folder):
        tell_progress(folder, 300, 60.0)
        for path, place in (("study/ladder.html", "[data-left]"), ("index.html", "[data-cell-of]")):
            tell_progress(folder, 300, 60.0)
            tab.goto(server.url + path)
            told = tab.locator(place).first.text_content()
            assert "10 min" in told
            tell_progress(folder, 310, 6200.0)  # it has become slow
            changed = f"told => document.querySelector('{place}').textContent !== told"
            tab.wait_for_function(changed, arg=told, timeout=PATIENT_MS)


def test_two_runs_that_are_ticked_can_be_compared(tab, served):
    tab.goto(f"{served}runs.html")
    boxes = tab.get_by_role("checkbox")
    for k in (0, 1, 2):  # the last two count
        boxes.nth(k).check()
    assert not boxes.nth(0).is_checked()
    follow(tab, tab.get_by_role("link", name="compare these two"))
    assert tab.locator("h1").inner_text() == "Two runs compared"
    assert barriers(tab) == []
    assert tab.locator("#compared-metrics tbody tr").count() > 10
