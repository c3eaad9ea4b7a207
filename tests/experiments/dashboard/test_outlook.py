"""How long a grid still takes: the prices, the dealing out, and how sure it is."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.dashboard.outlook import Outlook, Pace, dealt, pooled
from experiments.dashboard.site import Site
from experiments.leases import lock
from experiments.progress import Progress
from experiments.provenance import processor
from experiments.recipe import to_tree
from experiments.snapshot import Run
from experiments.store import Record, Result, Store, write_result
from experiments.study import Cell, Selection, cells
from experiments.study_file import load_profile, load_study
from tests.experiments.dashboard.reading import read, row_of
from tests.experiments.dashboard.test_pages import page

PICTURES, EPOCHS = 2400, 2


@pytest.fixture(scope="module")
def grid() -> list[Cell]:
    """Three seeds of two variants."""
    only = ("r50-fpn", "spinenet-96")
    return cells(load_study("ladder"), Selection(load_profile("embedded"), seeds=3, only=only))


def finished(cell: Cell, like: Result, macs_b: float, rate: float, beside_s: float) -> Run:
    """A run that took what its multiply-adds take at this rate, in pictures of 1e9 of them."""
    training = PICTURES * EPOCHS * macs_b / rate
    result = replace(
        like,
        run_id=cell.run_id,
        macs_b=macs_b,
        images_seen=PICTURES * EPOCHS,
        train_seconds=training,
        seconds=training + beside_s,
        images_per_second=rate / macs_b,
        environment={"processor": processor()},
    )
    return Run(cell.run_id, Path("x"), Record("complete", result))


def running(cell: Cell, share: float, rate: float) -> Run:
    """A run at this share of its steps, at so many pictures per second."""
    total, batch = PICTURES * EPOCHS // 8, 8
    done = round(share * total)
    now = Progress(done, total, batch, 0.0, 0, done * batch / rate)
    return Run(cell.run_id, Path("x"), Record("running"), progress=now)


def test_waiting_runs_go_to_the_first_worker_that_is_free():
    assert dealt([], [], 2) == 0
    assert dealt([], [5.0, 3.0, 1.0], 1) == 9
    assert dealt([4.0, 1.0], [2.0, 2.0], 2) == 5  # both after the second worker's first
    assert dealt([3.0], [2.0], 2) == 3  # beside it


def test_runs_of_like_networks_are_one_speed(grid, a_result):
    runs = [
        finished(c, a_result, 0.2, rate, 5.0) for c, rate in zip(grid, (10.0, 30.0), strict=False)
    ]
    (speed,) = pooled([run.record.result for run in runs])
    assert speed.images_per_second == pytest.approx(2 / (1 / 50 + 1 / 150))
    assert speed.beside_s == pytest.approx(5.0)


def test_what_is_missing_takes_what_its_multiply_adds_take(grid, a_result):
    first = grid[0]
    done = {first.run_id: finished(first, a_result, 0.187173568, 10.0, 6.0)}
    pace = Pace(grid, done)
    found = pace.outlook(done)
    seconds = {
        v: PICTURES * EPOCHS * pace.macs_b[c.run_id] / 10 + 6
        for v, c in {c.variant: c for c in grid}.items()
    }
    assert seconds["spinenet-96"] > seconds["r50-fpn"] > 90
    assert found.seconds == pytest.approx(2 * seconds["r50-fpn"] + 3 * seconds["spinenet-96"])
    assert found.share == pytest.approx(seconds["r50-fpn"] / (3 * sum(seconds.values())))
    assert not found.running
    assert found.off is None  # one run cannot say


def test_two_at_work_share_what_is_left(grid, a_result):
    runs = {c.run_id: finished(c, a_result, 0.2, 10.0, 0.0) for c in grid[:2]}
    one = PICTURES * EPOCHS * 0.2 / 10
    runs |= {c.run_id: running(c, 0.5, 50.0) for c in grid[2:4]}
    found = Pace(grid, runs).outlook(runs)
    assert (found.workers, found.running) == (2, True)
    assert found.seconds == pytest.approx(1.5 * one)
    assert found.share == pytest.approx(3 / 6)


def test_a_run_that_is_slower_than_the_others_counts_at_its_own_rate(grid, a_result):
    runs = {c.run_id: finished(c, a_result, 0.2, 10.0, 0.0) for c in grid[:5]}
    last = grid[5]
    for share, left in ((0.5, 0.5 * PICTURES * EPOCHS / 25), (0.05, 0.95 * PICTURES * EPOCHS / 50)):
        now = runs | {last.run_id: running(last, share, 25.0)}  # a twentieth is too early to tell
        assert Pace(grid, now).outlook(now).seconds == pytest.approx(left, rel=0.01)


def test_how_sure_it_is_follows_from_how_runs_agreed(grid, a_result):
    even = {c.run_id: finished(c, a_result, 0.2, 10.0, 1.0) for c in grid[:4]}
    assert Pace(grid, even).off == pytest.approx(0, abs=1e-6)
    rates = (8.0, 10.0, 12.0, 15.0)
    uneven = {
        c.run_id: finished(c, a_result, 0.2, r, 1.0) for c, r in zip(grid[:4], rates, strict=True)
    }
    off = Pace(grid, uneven).off
    assert off is not None
    assert 0.2 < off < 0.5


def test_a_run_that_was_resumed_is_no_faster_than_the_others(grid, a_result):
    whole = {c.run_id: finished(c, a_result, 0.2, 10.0, 1.0) for c in grid[:4]}
    last = whole[grid[0].run_id].record.result
    assert last is not None
    quarter = replace(
        last, train_seconds=last.train_seconds / 4, seconds=last.train_seconds / 4 + 1
    )
    resumed = Run(last.run_id, Path("x"), Record("complete", quarter))
    found = Pace(grid, whole | {last.run_id: resumed})
    assert found.speeds == pytest.approx(Pace(grid, whole).speeds)
    assert found.off == pytest.approx(0, abs=1e-6)


def test_before_any_run_has_ended_the_rate_of_those_that_run_prices_the_rest(grid):
    now = {grid[0].run_id: running(grid[0], 0.25, 40.0)}
    found = Pace(grid, now).outlook(now)
    assert found.seconds is not None
    assert found.seconds > 5 * PICTURES * EPOCHS / 40
    assert found.off is None
    assert Pace(grid, {}).outlook({}) == Outlook(0.0, None, 1, False)


def test_runs_timed_on_another_machine_are_taken_if_there_are_no_others(grid, a_result):
    there = finished(grid[0], a_result, 0.2, 1000.0, 0.0)
    assert there.record.result is not None
    there = replace(there, record=Record("complete", replace(there.record.result, environment={})))
    slow = finished(grid[1], a_result, 0.2, 10.0, 0.0)
    alone, both = {grid[0].run_id: there}, {grid[0].run_id: there, grid[1].run_id: slow}
    assert Pace(grid, alone).speeds[0].images_per_second == pytest.approx(5000)
    assert Pace(grid, both).speeds[0].images_per_second == pytest.approx(50)


def test_failed_runs_are_not_waited_for(grid, a_result):
    runs = {c.run_id: finished(c, a_result, 0.2, 10.0, 0.0) for c in grid[:5]}
    runs[grid[5].run_id] = Run(grid[5].run_id, Path("x"), Record("failed"))
    found = Pace(grid, runs).outlook(runs)
    assert found.seconds == 0
    assert found.share == pytest.approx(5 / 6)


def begun_ladder(root: Path, like: Result) -> Path:
    """Five of the ladder's six seeds, 130 s a run; the folder of the next."""
    every = cells(load_study("ladder"), Selection(load_profile("embedded"), seeds=6))
    facts: dict[str, Any] = {"environment": {"processor": processor()}, "macs_b": 0.2}
    facts |= {"images_seen": 4800, "train_seconds": 120.0, "seconds": 130.0}
    facts |= {"images_per_second": 40.0}
    for cell in every[:25]:
        tree = to_tree(cell.recipe)
        made = replace(like, run_id=cell.run_id, seed=cell.seed, recipe=tree, **facts)
        write_result(root / f"{cell.recipe.name}-{cell.run_id}", made)
    return Store(root).folder(every[25].run_id, every[25].recipe.name)


def tell_progress(folder: Path, step: int, seconds: float) -> None:
    """The run has done so many of 600 steps in so long."""
    now = {"step": step, "total": 600, "batch_size": 8, "begun": 0.0, "begun_at_step": 0}
    (folder / "progress.json").write_text(json.dumps({**now, "updated": seconds}))


def test_pages_say_how_long_it_still_takes(tmp_path, a_result):
    folder = begun_ladder(tmp_path, a_result)
    site = Site([tmp_path], is_live=True)
    told = "; about 11 min for what is missing, by one process, give or take 1 %."
    assert told in page(site, "study/ladder.html").words
    row = row_of(page(site, "index.html"), "Studies with runs", load_study("ladder").title)
    assert row["time left"].words == "11 min ± 1 %"
    assert row["complete"].words == "25 of 30"
    with lock(folder):
        tell_progress(folder, 300, 60.0)
        news = read(site.news()[0].encode())
        (line,) = (p for p in news.all("p") if "under-way" in p.attributes["class"])
        assert "ladder, embedded" in line.words
        assert "85 %, 25 of 30 runs" in line.words
        assert "about 10 min left, give or take 1 %" in line.words
        (bar,) = line.all("progress")
        assert float(bar.attributes["value"]) == pytest.approx(25.5 / 30)


def test_the_news_of_a_large_grid_come_in_a_moment(tmp_path, a_result):
    every = cells(load_study("one_stage"), Selection(load_profile("embedded"), seeds=20))
    for cell in every[:-10]:
        made = replace(a_result, run_id=cell.run_id, seed=cell.seed, recipe=to_tree(cell.recipe))
        write_result(tmp_path / f"{cell.recipe.name}-{cell.run_id}", made)
    site = Site([tmp_path], is_live=True)
    with lock(Store(tmp_path).folder(every[-1].run_id, every[-1].recipe.name)):
        site.news()
        start = time.process_time()
        site.news()
        assert time.process_time() - start < 0.3
