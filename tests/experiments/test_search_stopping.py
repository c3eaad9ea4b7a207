"""Searches that are killed: the same candidates and the same best as undisturbed where the search
is synchronous, nothing lost and nothing done twice where it is not.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.leases import lock
from experiments.search.asynchronous import AsynchronousSearch, make_search
from experiments.search.candidates import RunMissingError, Search
from experiments.search.journal import Ask, Journal, Tell
from experiments.search.pace import Session, note, pace, read_pace, session
from experiments.store import Store
from experiments.subprocesses import environment
from tests.experiments.search_helpers import CONFIG, carried_out, searching

ASYNCHRONOUS = replace(CONFIG, mode="asynchronous")


def rows(search: Search) -> list[tuple[tuple[int, ...], float]]:
    """What was told, in order."""
    return [(tried.candidate.choices, tried.reward) for tried in search.tried]


def killed(folder: Path, mode: str, seed: int, instants: list[float]) -> list[str]:
    """Search in processes of their own that are killed at these instants, in seconds; the runs in
    the order of their start, those of all processes together.
    """
    context = multiprocessing.get_context("fork")  # numpy's controllers start no thread
    for place, instant in enumerate([*instants, None]):
        worker = context.Process(target=_searching, args=(folder, mode, seed + place))
        worker.start()
        if instant is None:
            worker.join(60)
            assert worker.exitcode == 0
        else:
            time.sleep(instant)
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            assert worker.exitcode in (0, -signal.SIGKILL)
    return [path.name for path in sorted((folder / "runs").iterdir())]


def _searching(folder: Path, mode: str, seed: int) -> None:
    config = replace(CONFIG, mode=mode)
    search = make_search(config, Store(folder / "runs"), folder)
    carried_out(search, 3, np.random.default_rng(seed))


class TestSynchronous:
    def test_killed_ten_times_it_tells_the_same_in_the_same_order(self, tmp_path):
        start = time.perf_counter()
        undisturbed = searching(CONFIG, Store(tmp_path / "undisturbed" / "runs"))
        expected = carried_out(undisturbed, 3, np.random.default_rng(0))
        seconds = time.perf_counter() - start
        instants = (seconds * np.random.default_rng(1).uniform(0.05, 0.35, 10)).tolist()
        (tmp_path / "killed").mkdir()
        runs = killed(tmp_path / "killed", "synchronous", 1, instants)
        found = make_search(CONFIG, Store(tmp_path / "killed" / "runs"), tmp_path / "killed")
        found.replay()
        assert found.is_complete
        assert rows(found) == rows(undisturbed)
        assert len(runs) == len(expected)
        assert found.journal.runs() == [candidate.cell.run_id for candidate in found.asked]

    @pytest.mark.accuracy
    def test_trained_for_real_and_killed_ten_times_it_finds_the_same(self, tmp_path):
        """Whole processes of the command; half of the kills leave the running trainings behind."""
        undisturbed = self.command(tmp_path / "undisturbed")
        expected, _ = undisturbed.communicate()
        rng, folder = np.random.default_rng(0), tmp_path / "killed"
        for place, instant in enumerate(rng.uniform(2, 25, 10)):
            process = self.command(folder)
            time.sleep(instant)
            if process.poll() is None:
                if place % 2:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        found, _ = self.command(folder).communicate()
        assert set(json.loads(found)) == set(json.loads(expected))
        for key in ("config", "tried", "best_so_far", "front", "level_shares"):
            assert json.loads(found)[key] == json.loads(expected)[key], key

    def command(self, folder: Path) -> subprocess.Popen[str]:
        """A search of twelve candidates at the smoke profile, in a process group of its own."""
        code = "from experiments.cli import main; main()"
        search = "search mine --space r0-sp53 --controller evolution -n 12 -p smoke -j 2 --json"
        where = ["--runs", str(folder / "runs"), "--searches", str(folder / "searches")]
        return subprocess.Popen(
            [sys.executable, "-c", code, *search.split(), *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
            start_new_session=True,
        )


class TestAsynchronous:
    def search(self, folder: Path, samples: int = CONFIG.samples) -> Search:
        folder.mkdir(exist_ok=True)
        return make_search(replace(ASYNCHRONOUS, samples=samples), Store(folder / "runs"), folder)

    def test_killed_ten_times_nothing_is_lost_and_nothing_done_twice(self, tmp_path):
        tmp_path = tmp_path / "killed"
        tmp_path.mkdir()
        runs = killed(tmp_path, "asynchronous", 1, [0.05 * n for n in range(1, 11)])
        found = self.search(tmp_path)
        found.replay()
        told = Counter(tried.candidate.number for tried in found.tried)
        assert found.is_complete
        assert told == Counter(range(CONFIG.samples))
        asked = {tried.candidate.cell.run_id for tried in found.tried}
        assert Counter(name.rpartition("-")[2] for name in runs) == Counter(asked)

    def test_no_worker_waits_for_another(self, tmp_path):
        search = self.search(tmp_path)
        pending = search.cells()
        assert [next(pending) is None for _ in range(8)] == [False] * 8

    def test_results_are_told_as_they_come(self, tmp_path):
        orders = []
        for seed in range(2):
            search = self.search(tmp_path / str(seed))
            carried_out(search, 4, np.random.default_rng(seed))
            orders.append([tried.candidate.number for tried in search.tried])
        assert orders[0] != orders[1]
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(CONFIG.samples))

    def test_gone_through_again_it_is_the_same_search(self, tmp_path):
        search = self.search(tmp_path)
        carried_out(search, 4, np.random.default_rng(0))
        again = self.search(tmp_path)
        again.replay()
        assert rows(again) == rows(search)
        longer = self.search(tmp_path, samples=70)
        assert len(carried_out(longer, 4, np.random.default_rng(1))) <= 10
        assert rows(longer)[: CONFIG.samples] == rows(search)

    def test_who_watches_follows_it(self, tmp_path):
        carried_out(self.search(tmp_path), 4, np.random.default_rng(0), stop_after=9)
        watcher = self.search(tmp_path)
        watcher.replay()
        before = rows(watcher)
        search = self.search(tmp_path)
        carried_out(search, 4, np.random.default_rng(1))
        watcher.replay()
        watcher.replay()
        assert len(before) < CONFIG.samples
        assert rows(watcher) == rows(search)

    def test_a_line_that_was_not_written_whole_is_cut_off(self, tmp_path):
        search = self.search(tmp_path)
        carried_out(search, 2, np.random.default_rng(0), stop_after=9)
        path = tmp_path / "journal.txt"
        whole, events = path.read_bytes(), Journal(path).events()
        path.write_bytes(whole + b"tel")
        assert Journal(path).events() == events
        carried_out(self.search(tmp_path), 2, np.random.default_rng(0))
        assert path.read_bytes().startswith(whole)
        assert len(Journal(path).events()) == 2 * CONFIG.samples

    @pytest.mark.parametrize("tail", [b"", b"ask 2", b"t\xc3\xa9ll"])
    def test_no_whole_line_is_cut_off_however_lines_end(self, tmp_path, tail):
        path, whole = tmp_path / "journal.txt", b"ask 0 ab\r\nask 1 cd\r\ntell 1\r\n"
        path.write_bytes(whole + tail)
        Journal(path).mend()
        assert path.read_bytes() == whole
        assert Journal(path).events() == [Ask(0, "ab"), Ask(1, "cd"), Tell(1)]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("ask 0 ab\nasc 1 ab\n", "line 2: 'asc 1 ab' is neither"),
            ("ask 0 ab\ntell x\n", "line 2: 'tell x' is neither"),
            ("ask 0\n", "line 1: 'ask 0' is neither"),
            ("ask 1 ab\n", "'ask 1 ab' cannot follow"),
            ("ask 0 ab\ntell 3\n", "'tell 3' cannot follow"),
            ("ask 0 ab\ntell 0\ntell 0\n", "line 3: 'tell 0' cannot follow"),
            ("ask 0 ab\n", "sample 0 was run ab, and evolution now asks for"),
        ],
    )
    def test_a_journal_that_does_not_fit_is_refused(self, tmp_path, text, told):
        (tmp_path / "journal.txt").write_text(text)
        with pytest.raises(UserError, match=told):
            self.search(tmp_path).replay()

    def test_a_run_that_was_told_and_is_not_there_is_refused(self, tmp_path):
        carried_out(self.search(tmp_path), 2, np.random.default_rng(0), stop_after=9)
        (tmp_path / "runs").rename(tmp_path / "elsewhere")
        with pytest.raises(RunMissingError, match=r"was told, and its run is not in .* by --runs"):
            self.search(tmp_path).replay()

    def test_the_mode_decides_the_kind_of_search(self, tmp_path):
        assert isinstance(self.search(tmp_path), AsynchronousSearch)
        assert not isinstance(make_search(CONFIG, Store(tmp_path), tmp_path), AsynchronousSearch)


def test_a_search_that_is_under_way_is_refused(run, tmp_path):
    where = ("--runs", tmp_path / "runs", "--searches", tmp_path)
    with lock(tmp_path / "mine"):
        code, _, err = run("search", "mine", "--profile", "smoke", *where)
    assert code == 2
    assert "another process is searching" in err


class TestPace:
    def test_shares_are_of_all_cores_and_all_sessions(self, tmp_path):
        note(tmp_path, Session(wall_s=100, cores=2, runs=4, run_s=190, train_s=180))
        note(tmp_path, Session(wall_s=50, cores=2, runs=2, run_s=95, train_s=90))
        note(tmp_path, Session(wall_s=500, cores=2, runs=0, run_s=0, train_s=0))  # only looked
        found = read_pace(tmp_path)
        assert found is not None
        assert found.runs == 6
        assert found.per_core_hour == pytest.approx(3600 * 6 / 300)
        assert found.outside_training == pytest.approx(0.1)
        assert found.outside_runs == pytest.approx(0.05)

    def test_a_session_is_the_sum_of_its_runs(self, tmp_path):
        search = searching(CONFIG, Store(tmp_path))
        carried_out(search, 2, np.random.default_rng(0))
        results = list(search.store.results())
        made = session(10.0, 2, results)
        assert made == Session(10.0, 2, len(results), 2.0 * len(results), 1.0 * len(results))

    def test_without_a_run_there_is_no_pace(self, tmp_path):
        assert read_pace(tmp_path) is None
        assert pace([]) is None

    def test_a_line_that_is_no_session_is_named(self, tmp_path):
        (tmp_path / "sessions.jsonl").write_text('{"wall_s": "long"}\n')
        with pytest.raises(UserError, match=r"sessions\.jsonl"):
            read_pace(tmp_path)
