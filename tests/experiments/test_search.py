"""Searches: the same candidates whatever the timing, and nothing lost or done twice."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from experiments import leases
from experiments.cli.render import SearchProgress, progress_console
from experiments.counting import as_trained, counts
from experiments.errors import UserError
from experiments.inspection import check_study
from experiments.search import documents, stored
from experiments.search.asynchronous import make_search, replayed
from experiments.search.candidates import (
    LOST,
    Candidate,
    LimitError,
    RunMissingError,
    Search,
    Tried,
)
from experiments.search.config import SearchConfig, keep_settings, read_config
from experiments.search.figures import found_figure
from experiments.search.finals import SEEDS, finals, verdicts, winner
from experiments.search.findings import Findings, findings, read_all
from experiments.search.pace import Pace
from experiments.search.report import best_so_far, front, level_shares, standings
from experiments.store import Failure, Store, write_failure
from experiments.tidying import asked_runs
from spinenet import genotype as genotypes
from spinenet.search.controllers import RegularisedEvolution
from spinenet.search.space import space
from tests.experiments.search_helpers import CONFIG, carried_out, finish, searching
from tests.experiments.test_leases import ELSEWHERE, QUICK


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.mark.parametrize("controller", ["evolution", "random", "policy"])
def test_timing_does_not_matter(controller, tmp_path):
    found = []
    for workers, seed in ((1, 0), (2, 1), (3, 2), (8, 3)):
        store = Store(tmp_path / f"{workers}")
        search = searching(replace(CONFIG, controller=controller, samples=30), store)
        carried_out(search, workers, np.random.default_rng(seed))
        found.append([(tried.candidate.choices, tried.reward) for tried in search.tried])
    assert len(found[0]) == 30
    assert all(other == found[0] for other in found)


def test_stopped_anywhere_it_ends_as_if_it_had_not_been(tmp_path):
    whole = searching(CONFIG, Store(tmp_path / "whole"))
    expected = carried_out(whole, 2, np.random.default_rng(0))
    rng, store = np.random.default_rng(1), Store(tmp_path / "stopped")
    runs: list[str] = []
    for stop_after in (1, 4, 9, 2, 7, 5):
        runs += carried_out(searching(CONFIG, store), 2, rng, stop_after)[:-1]
    last = searching(CONFIG, store)
    runs += carried_out(last, 2, rng)
    assert [t.candidate.choices for t in last.tried] == [t.candidate.choices for t in whole.tried]
    assert {r.run_id for r in store.results()} == set(expected)


def test_the_time_left_is_by_what_this_session_did(store, monkeypatch, capsys):
    carried_out(searching(CONFIG, store), 1, np.random.default_rng(0), stop_after=40)
    now = 0.0
    monkeypatch.setattr(progress_console, "get_time", lambda: now)
    search = searching(CONFIG, store)
    progress = SearchProgress(search)
    with progress:
        for cell in islice(search.cells(), 10):
            assert cell is not None
            progress.watch(cell, {"kind": "start"})
            now += 60
            finish(store, cell)
            progress.watch(cell, {"kind": "done"})
    left = CONFIG.samples - len(search.tried)
    *_, last = [line for line in capsys.readouterr().err.splitlines() if "left" in line]
    assert any(f"about {left + late} min left" in last for late in (0, 1)), (left, last)


def test_no_more_than_the_lag_is_under_way(store):
    search = searching(CONFIG, store)
    pending = search.cells()
    assert [next(pending) is None for _ in range(4)] == [False, False, False, True]


def test_a_network_written_another_way_is_not_run_again(store, monkeypatch):
    search = searching(CONFIG, store)
    row = search.space.sample(np.random.default_rng(0))
    monkeypatch.setattr(search.controller, "ask", lambda number, attempt: row)
    assert len(carried_out(search, 2, np.random.default_rng(0))) == 1
    assert len({tried.reward for tried in search.tried}) == 1
    assert len(search.tried) == CONFIG.samples


def macs_m(candidate: Candidate) -> float:
    return counts(*as_trained(candidate.cell.recipe)).macs_b * 1e3


@pytest.mark.parametrize("controller", ["random", "evolution", "policy"])
def test_in_place_of_a_network_over_the_limit_another_is_drawn(store, controller):
    config = replace(CONFIG, controller=controller, samples=8)
    free = searching(config, store)
    carried_out(free, 1, np.random.default_rng(0))
    sizes = [macs_m(tried.candidate) for tried in free.tried]
    limit = float(np.median(sizes))
    search = searching(replace(config, macs_m=limit), store, "limited")
    carried_out(search, 1, np.random.default_rng(0))
    assert len(search.tried) == 8
    assert all(macs_m(tried.candidate) <= limit for tried in search.tried)
    assert search.tried[0].candidate.choices == free.tried[0].candidate.choices or sizes[0] > limit
    again = searching(replace(config, macs_m=limit), store, "limited")
    again.replay()
    assert [t.candidate.choices for t in again.tried] == [t.candidate.choices for t in search.tried]


def test_a_limit_that_nothing_meets_is_refused(store, monkeypatch):
    monkeypatch.setattr("experiments.search.candidates.MOST_ATTEMPTS", 5)
    search = searching(replace(CONFIG, macs_m=0.001), store)
    with pytest.raises(LimitError, match=r"macs_m is 0.001, and of 5 networks .* raise the limit"):
        next(search.cells())


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_search_that_meets_its_limit_is_told_as_far_as_it_went(store, monkeypatch, mode):
    config = replace(CONFIG, mode=mode, macs_m=1e9)
    search = searching(config, store)

    def costly(self: Search, number: int) -> object:
        if number == 8:
            raise LimitError("macs_m")
        return affordable(self, number)

    affordable = Search._affordable
    monkeypatch.setattr(Search, "_affordable", costly)
    with pytest.raises(LimitError):
        carried_out(search, 2, np.random.default_rng(0))
    again = searching(config, store)
    again.replay()
    again.replay()
    assert len(again.tried) == len(again.asked) == 8
    assert [t.reward for t in again.tried] == [t.reward for t in search.tried]
    with pytest.raises(LimitError):
        list(again.cells())


def test_a_loss_that_was_not_finite_is_worth_nothing_and_other_failures_are_tried_again(store):
    search = searching(CONFIG, store)
    first = next(search.cells())
    write_failure(store.folder(first.run_id, "x"), Failure("NonFiniteLossError", "loss"))
    assert first.run_id not in carried_out(searching(CONFIG, store), 1, np.random.default_rng(0))
    other = Store(store.root / "other")
    write_failure(other.folder(first.run_id, "x"), Failure("ProcessDied", "killed"))
    assert first.run_id in carried_out(searching(CONFIG, other), 1, np.random.default_rng(0))


class TestAnotherController:
    """One that asks for other networks than it did, from sample 12 on at the latest."""

    @pytest.fixture(params=["synchronous", "asynchronous"])
    def config(self, request, store) -> SearchConfig:
        config = replace(CONFIG, samples=40, mode=request.param)
        keep_settings(store.root / "mine", config)
        return config

    @pytest.fixture
    def change(self, monkeypatch) -> Callable[[], None]:
        smaller = partial(RegularisedEvolution, population=12)
        return lambda: monkeypatch.setattr(
            "experiments.search.config.RegularisedEvolution", smaller
        )

    def test_it_is_refused_and_nothing_is_tidied_away(self, config, store, change):
        carried_out(searching(config, store), 2, np.random.default_rng(0))
        change()
        told = r"journal\.txt: sample 1\d was run .* and evolution now asks for .*another name"
        for use in (
            lambda: replayed(store.root / "mine", store),
            lambda: list(searching(config, store).cells()),
            lambda: asked_runs(store, store.root),
        ):
            with pytest.raises(UserError, match=told):
                use()

    def test_what_comes_after_a_run_that_is_gone_is_not_tidied_away(self, config, store):
        search = searching(config, store)
        runs = set(carried_out(search, 2, np.random.default_rng(0)))
        assert set(search.journal.runs()) == runs
        if config.mode == "synchronous":
            gone = search.tried[4].candidate.cell
            shutil.rmtree(store.find(gone.run_id))
            assert len(replayed(store.root / "mine", store).asked) < 10
        assert runs <= asked_runs(store, store.root)


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_another_store_is_refused_and_its_runs_may_go(store, tmp_path, mode):
    config = replace(CONFIG, mode=mode)
    keep_settings(store.root / "mine", config)
    runs = carried_out(searching(config, store), 2, np.random.default_rng(0))
    folder, other = store.root / "mine", Store(tmp_path / "other")
    for use in (
        lambda: replayed(folder, other),
        lambda: next(make_search(config, other, folder).cells()),
    ):
        with pytest.raises(RunMissingError, match=r"journal\.txt: .* --runs, or give the search"):
            use()
    assert set(runs) <= asked_runs(other, store.root)


def test_a_search_without_a_journal_goes_on_and_writes_one(store):
    whole = searching(CONFIG, store)
    carried_out(whole, 2, np.random.default_rng(0), stop_after=20)
    path, runs = whole.journal.path, whole.journal.runs()
    for left in (b"", b"".join(path.read_bytes().splitlines(keepends=True)[:7]) + b"ask 7 01"):
        path.write_bytes(left)
        again = searching(CONFIG, store)
        again.replay()
        assert path.read_bytes() == left
        assert len(again.tried) >= len(whole.tried)
        next(again.cells())
        assert again.journal.runs()[: len(runs)] == runs
    path.unlink()
    last = searching(CONFIG, store)
    carried_out(last, 2, np.random.default_rng(0))
    assert last.journal.runs() == [candidate.cell.run_id for candidate in last.asked]


class TestConfig:
    def test_it_is_held_for_those_who_come_back(self, tmp_path):
        keep_settings(tmp_path, CONFIG)
        assert read_config(tmp_path) == CONFIG
        keep_settings(tmp_path, replace(CONFIG, samples=90))
        assert read_config(tmp_path).samples == 90
        with pytest.raises(UserError, match="samples is 90, and 80 is fewer; give at least"):
            keep_settings(tmp_path, replace(CONFIG, samples=80))
        assert read_config(tmp_path).samples == 90

    def test_a_proxy_that_has_changed_is_refused(self, tmp_path):
        keep_settings(tmp_path, CONFIG, "0123456789ab")
        keep_settings(tmp_path, CONFIG, "0123456789ab")
        assert read_config(tmp_path) == CONFIG
        with pytest.raises(
            UserError, match=r"proxy_run is 0123456789ab, not ba.*has changed since"
        ):
            keep_settings(tmp_path, CONFIG, "ba9876543210")

    def test_other_settings_under_the_same_name_are_refused(self, tmp_path):
        keep_settings(tmp_path, CONFIG)
        with pytest.raises(UserError, match=r"seed is 0, not 1.*another name"):
            keep_settings(tmp_path, replace(CONFIG, seed=1))

    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda: replace(CONFIG, controller="evolutoin"), "did you mean 'evolution'"),
            (lambda: replace(CONFIG, samples=0), "samples 0"),
            (lambda: replace(CONFIG, macs_m=-1.0), "macs_m -1.0"),
            (lambda: replace(CONFIG, macs_m=math.nan), "macs_m nan must be positive and finite"),
            (lambda: replace(CONFIG, macs_m=math.inf), "macs_m inf"),
            (lambda: replace(CONFIG, seed=-1), "seed -1 must be at least 0"),
            (lambda: replace(CONFIG, run_seed=2**32), "run_seed 4294967296 must be"),
            (lambda: replace(CONFIG, space="fis").searched_space(), "did you mean 'fish'"),
        ],
    )
    def test_mistakes_are_named(self, make: Callable[[], object], told: str):
        with pytest.raises(UserError, match=told):
            make()

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"seed": -1}, "seed -1 must be at least 0"),
            ({"lag": 2.5}, "lag: Input should be a valid integer"),
            ({"samples": True}, "samples: Input should be a valid integer"),
            ({"run_seed": "a"}, "run_seed: Input should be a valid integer"),
            ({"recipe": 3}, "recipe: Input should be a valid string"),
            ({"mode": "asynch"}, "mode: Input should be 'synchronous' or 'asynchronous'"),
            ({"reward": "top5"}, "reward: Input should be 'AP' or 'top1'"),
            ({"macs_m": math.nan}, "macs_m nan must be positive and finite"),
            ({"sample": 3}, "unknown key 'sample'; did you mean 'samples'"),
        ],
    )
    def test_a_setting_that_was_written_wrong_is_named(self, tmp_path, change, told):
        keep_settings(tmp_path, CONFIG)
        path = tmp_path / "search.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
        with pytest.raises(UserError, match=rf"search\.json: {told}.*; mend it, or"):
            read_config(tmp_path)

    def test_a_search_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="no such search"):
            read_config(tmp_path)


class TestReport:
    @pytest.fixture
    def tried(self, store: Store) -> list[Tried]:
        search = searching(CONFIG, store)
        carried_out(search, 2, np.random.default_rng(0))
        return search.tried

    def test_the_best_come_first_and_each_network_once(self, tried):
        found = standings(tried)
        rewards = [one.reward for one in found]
        assert rewards == sorted(rewards, reverse=True)
        assert len({one.run_id for one in found}) == len(found)
        assert best_so_far(tried)[-1] == rewards[0]

    def test_nothing_cheaper_is_better_than_the_front(self, tried):
        found = standings(tried)
        sized = [replace(one, macs_m=float(i * 7 % 11)) for i, one in enumerate(found)]
        kept = front(sized)
        for one in sized:
            beaten = any(o.macs_m <= one.macs_m and o.reward > one.reward for o in sized)
            alike = any(o != one and (o.macs_m, o.reward) == (one.macs_m, one.reward) for o in kept)
            assert (one in kept) != (beaten or alike)

    def test_shares_of_levels_are_those_of_the_space(self, tried):
        shares = level_shares(tried)  # the fish has one order, so nothing can move
        assert {level: late for level, (_, late) in shares.items()} == pytest.approx(
            {2: 0.1, 3: 0.3, 4: 0.5, 5: 0.1}
        )


@pytest.mark.parametrize("mode", [(), ("--asynchronous",)])
def test_a_search_on_the_command_line(run, tmp_path, mode):
    where = ("--runs", tmp_path / "runs", "--searches", tmp_path / "searches")
    asked = ("search", "mine", "--space", "fish", "--profile", "smoke", "--lag", "2", *mode)
    code, out, _ = run(*asked, "--controller", "random", "--samples", "3", "--json", *where)
    assert code == 0
    first = json.loads(out)
    assert first["tried"] == len(first["best_so_far"]) == 3
    assert first["pace"]["runs"] == 3
    assert 0 < first["pace"]["outside_runs"] < first["pace"]["outside_training"] < 1
    code, out, _ = run(
        "search-report", "mine", "--json", "--export", tmp_path / "mine.yaml", *where
    )
    assert json.loads(out) == first
    kept, page, drawn = (tmp_path / name for name in ("found/mine.json", "page.md", "found.svg"))
    assert run("search-report", "mine", "--out", kept, *where)[0] == 0
    page.write_text("<!-- table: search found -->\n<!-- end -->\n")
    code, *_ = run("search-found", kept.parent, "--into", page, "--figure", drawn)
    assert code == 0
    assert documents.found_markdown(read_all(kept.parent)) in page.read_text()
    assert "| mine | fish | random | 3 |" in page.read_text()
    assert "<svg" in drawn.read_text()
    assert json.loads(run("search-found", kept.parent, "--json")[1]) == [first]
    best = genotypes.load(tmp_path / "mine.yaml")
    assert best.name == "mine"
    assert "3 samples of random" in best.source
    assert space("fish").decode(space("fish").encode(best)).content() == best.content()
    code, _, err = run(*asked, "--controller", "policy", *where)
    assert code == 2
    assert "controller is 'random', not 'policy'" in err


def test_a_search_in_which_nothing_could_be_learned_is_refused(run, tmp_path, monkeypatch):
    where = ("--runs", tmp_path / "runs", "--searches", tmp_path / "searches")
    monkeypatch.setattr("experiments.executors.local.default_workers", lambda cells, _: len(cells))
    asked = ("search", "mine", "--space", "fish", "--profile", "smoke", "--samples", "3")
    code, _, err = run(*asked, "--asynchronous", *where)
    assert code == 2
    assert "--asynchronous: all 3 samples would be under way at once" in err
    assert not list((tmp_path / "runs").glob("*"))


def failing(failure: Failure) -> Callable[..., None]:
    """What carries out runs of which each fails."""

    def run_as_asked(upcoming, store, runtime_of, workers, watch):
        while (cell := upcoming()) is not None:
            watch(cell, {"kind": "start"})
            write_failure(store.folder(cell.run_id, cell.recipe.name), failure)
            watch(cell, {"kind": "failed", "failure": failure})

    return run_as_asked


def test_a_machine_that_fails_does_not_spend_the_samples(run, tmp_path, monkeypatch):
    fail = failing(Failure("RuntimeError", "CUDA error"))
    monkeypatch.setattr("experiments.executors.local.run_as_asked", fail)
    where = ("--runs", tmp_path / "runs", "--searches", tmp_path / "searches")
    asked = ("search", "mine", "--space", "fish", "--profile", "smoke", "--samples", "30")
    code, _, err = run(*asked, "--asynchronous", "--jobs", "2", "--lag", "3", *where)
    assert code == 2
    assert "CUDA error" in err
    assert len((tmp_path / "searches" / "mine" / "journal.txt").read_text().splitlines()) == 3


def test_a_network_whose_loss_diverges_ends_the_run_and_not_the_search(run, tmp_path, monkeypatch):
    fail = failing(Failure("NonFiniteLossError", "the loss is not finite"))
    monkeypatch.setattr("experiments.executors.local.run_as_asked", fail)
    where = ("--runs", tmp_path / "runs", "--searches", tmp_path / "searches")
    asked = ("search", "mine", "--space", "fish", "--profile", "smoke", "--samples", "3")
    code, out, _ = run(*asked, "--json", *where)
    assert code == 0
    assert json.loads(out)["best_so_far"] == [LOST] * 3


def test_a_run_whose_worker_elsewhere_died_is_taken_over(run, tmp_path, monkeypatch):
    starts: list[str] = []

    def first_elsewhere(upcoming, store, runtime_of, workers, watch):
        while (cell := upcoming()) is not None:
            watch(cell, {"kind": "start"})
            starts.append(cell.run_id)
            if len(starts) == 1:
                lease = store.folder(cell.run_id, cell.recipe.name) / leases.FOLDER / "1"
                lease.parent.mkdir(parents=True)
                lease.write_text(ELSEWHERE)
                watch(cell, {"kind": "skipped"})
            else:
                finish(store, cell)
                watch(cell, {"kind": "done"})

    monkeypatch.setattr("experiments.executors.local.run_as_asked", first_elsewhere)
    monkeypatch.setattr("experiments.leases.Pace", lambda: QUICK)
    where = ("--runs", tmp_path / "runs", "--searches", tmp_path / "searches")
    asked = ("search", "mine", "--space", "fish", "--profile", "smoke", "--samples", "3")
    code, out, _ = run(*asked, "--json", *where)
    assert (code, json.loads(out)["tried"]) == (0, 3)
    assert starts.count(starts[0]) == 2


class TestFinals:
    def ended(self, store: Store, changes: Callable[[int, int], float] | None) -> Search:
        """A search with its three best trained again; a finalist's rank and seed decide its AP."""
        search = searching(CONFIG, store)
        carried_out(search, 2, np.random.default_rng(0))
        if changes is not None:
            cells = finals(search, standings(search.tried)[:3])
            for place, cell in enumerate(cells):
                finish(store, cell, lambda it, rank=place // SEEDS: changes(rank, it.seed))
        return search

    def test_they_are_the_best_with_seeds_that_did_not_choose_them(self, store):
        search = self.ended(store, None)
        best = standings(search.tried)[:3]
        cells = finals(search, best)
        assert [cell.seed for cell in cells] == [1, 2] * 3
        assert [cell.label.split()[0] for cell in cells[::2]] == [one.name for one in best]
        assert {cell.run_id for cell in cells}.isdisjoint(one.run_id for one in best)
        assert verdicts(search, best) == {}
        assert winner(best, verdicts(search, best)) == best[0]

    def test_the_best_by_them_wins_and_not_the_luckiest(self, store):
        search = self.ended(store, lambda rank, seed: 10.0 * rank + seed)
        found = standings(search.tried)
        assert verdicts(search, found) == {
            one.number: 10.0 * rank + 1.5 for rank, one in enumerate(found[:3])
        }
        assert winner(found, verdicts(search, found)) == found[2]

    def test_a_finalist_that_lacks_a_seed_is_not_judged(self, store):
        search = self.ended(store, None)
        found = standings(search.tried)
        for cell in finals(search, found[:2])[:3]:
            finish(store, cell)
        assert list(verdicts(search, found)) == [found[0].number]

    def test_on_the_command_line_they_are_trained_once_and_the_best_is_exported(
        self, run, tmp_path
    ):
        where = ("--runs", tmp_path / "runs", "--searches", tmp_path / "searches")
        asked = ("search", "mine", "--space", "fish", "--profile", "smoke", "--samples", "2")
        asked += ("--controller", "random", "--finalists", "1", "--json")
        code, out, _ = run(*asked, *where)
        assert code == 0
        (number,) = json.loads(out)["finals"]
        assert json.loads(out)["pace"]["runs"] == 2 + SEEDS
        assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2 + SEEDS
        assert run(*asked, *where)[1] == out
        run("search-report", "mine", "--export", tmp_path / "mine.yaml", *where)
        best = genotypes.load(tmp_path / "mine.yaml")
        assert "2 samples of random, seed 0, the best of 1 finalists by two other" in best.source
        search = replayed(tmp_path / "searches" / "mine", Store(tmp_path / "runs"))
        assert best.content() == search.asked[int(number)].genotype.content()

    def test_what_another_worker_leaves_is_taken_over(self, run, store, monkeypatch):
        folder = store.root / "mine"
        search = self.ended(store, None)
        keep_settings(folder, CONFIG, search.proxy.run_id)
        calls: list[int] = []

        def carry_out(executor, cells, store, runtimes, workers, watch):
            calls.append(len(cells))
            for cell in cells[:2]:  # of the others another worker says that it has them
                watch(cell, {"kind": "start"})
                finish(store, cell)
                watch(cell, {"kind": "done"})

        monkeypatch.setattr("experiments.executors.run_cells", carry_out)
        asked = ("search", "mine", "--space", "fish", "--profile", "smoke", "--samples", "60")
        asked += ("--controller", "evolution", "--lag", "3", "--finalists", "2", "--json")
        code, out, err = run(*asked, "--runs", store.root, "--searches", store.root)
        assert code == 0, err
        assert calls == [4, 2]
        assert len(json.loads(out)["finals"]) == 2


class TestKept:
    @pytest.fixture
    def kept(self, store: Store) -> Findings:
        search = searching(CONFIG, store)
        carried_out(search, 2, np.random.default_rng(0))
        return findings("mine", search, store.root)

    def test_what_is_read_is_what_was_kept(self, kept, tmp_path):
        stored.write(tmp_path / "b.json", replace(kept, name="b", pace=Pace(60, 90.0, 0.05, 0.01)))
        stored.write(tmp_path / "a.json", kept)
        one, other = read_all(tmp_path)
        assert one == kept
        assert one.environment["commit"] == "0123456789abcdef"  # that of the runs
        assert "on made up" in documents.found_caption([one])
        assert [other.name, other.chosen] == ["b", kept.networks[0]]
        header, rows = documents.FOUND_HEADER, documents.found_rows([one, other])
        first, second = (dict(zip(header, row, strict=True)) for row in rows)
        assert first["best"] == second["best"] == f"{kept.best_so_far[-1]:.2f}"
        assert [first["core hours"], second["core hours"]] == ["", "0.7"]

    def test_the_chosen_is_the_best_finalist(self, kept):
        last = kept.networks[-1]
        assert replace(kept, finals={last.number: 3.0}).chosen == last
        assert (
            documents.found_rows([replace(kept, finals={last.number: 3.0})])[0][7] == "3.00, of 1"
        )

    def test_dots_and_the_best_so_far_are_drawn_in_the_order_of_telling(self, store):
        search = searching(replace(CONFIG, mode="asynchronous"), store)
        carried_out(search, 4, np.random.default_rng(0))
        found = findings("mine", search, store.root)
        assert all(search.tried[n.told - 1].candidate.number == n.number for n in found.networks)
        assert any(n.told != n.number + 1 for n in found.networks)
        climb, dots = found_figure([found]).axes[0].lines
        told, rewards = dots.get_data()
        assert list(told) == [n.told for n in found.networks]
        assert all(rewards <= climb.get_ydata()[told - 1])

    def test_nothing_kept_says_how(self, run, tmp_path):
        assert "search-report NAME --out" in run("search-found", tmp_path)[1]
        code, _, err = run("search-found", tmp_path, "--figure", tmp_path / "x.svg")
        assert code == 2
        assert "--figure: No search is kept yet" in err

    def test_a_damaged_file_is_named(self, run, kept, tmp_path):
        stored.write(tmp_path / "mine.json", replace(kept, networks=[]))
        code, _, err = run("search-found", tmp_path)
        assert code == 2
        assert "mine.json: networks: no sample has been trained; `spinenet search-report" in err


def test_the_study_of_our_search_compares_at_equal_multiply_adds(tmp_path):
    checked = check_study("search", "embedded", tmp_path)
    assert len(checked["variants"]) == 4
    for size in ("macs_m", "full_macs_b"):
        found = {row["variant"]: row[size] for row in checked["variants"]}
        for name, macs in found.items():
            assert macs == pytest.approx(found["spinenet-49"], rel=0.02), (name, size)
