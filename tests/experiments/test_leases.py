"""Leases: one holder of a run at a time, whoever dies, sleeps or comes at the same moment."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import leases
from experiments.cli import line_of
from experiments.grid import await_others
from experiments.leases import HeldError, LeaseLostError, Pace, Watch, is_locked, lock
from experiments.recipe import Recipe
from experiments.runtime import Runtime
from experiments.store import Failure, Store, write_failure, write_result
from experiments.study import Cell
from experiments.subprocesses import environment
from experiments.training import train
from tests.experiments.helpers import of_ladder

COMMITTED = Path(__file__).parents[2] / "results" / "embedded"
QUICK = Pace(beat_s=0.05, stale_s=0.6)
ELSEWHERE = '{"machine": "another", "pid": 1, "started": "0", "token": "t"}'

HOLDER = """
import sys, time
from pathlib import Path
from experiments import leases

leases.machine = lambda: sys.argv[2]
with leases.lock(Path(sys.argv[1]), leases.Pace(beat_s=0.05, stale_s=0.6)) as lease:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.keep()
        print("kept", flush=True)
    except leases.LeaseLostError as lost:
        print(lost, flush=True)
"""


class Holder:
    """A process that holds a run, on this machine or as if on another."""

    def __init__(self, folder: Path, machine: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), machine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def asked(self) -> str:
        """What it says of its lease now."""
        out, _ = self.process.communicate("\n", timeout=30)
        return out

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def folder_of(root: Path) -> Path:
    return root / "run-0123456789ab"


def test_a_run_is_held_by_one_process_and_given_back(tmp_path):
    folder = folder_of(tmp_path)
    assert not is_locked(folder)
    with lock(folder) as lease:
        lease.confirm()
        assert is_locked(folder)
        with pytest.raises(HeldError, match=r"another process is training this run; wait for it"):
            lock(folder).__enter__()
    assert not is_locked(folder)
    with lock(folder):
        assert is_locked(folder)


def test_a_dead_process_of_this_machine_is_succeeded_at_once(tmp_path):
    holder = Holder(folder_of(tmp_path), leases.machine())
    assert is_locked(folder_of(tmp_path))
    holder.process.kill()  # not waited for: it is a zombie still
    deadline = time.monotonic() + 5
    while is_locked(folder_of(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    with lock(folder_of(tmp_path)):
        pass
    holder.kill()


def test_a_later_process_of_the_same_number_is_not_the_holder(tmp_path):
    with lock(folder_of(tmp_path)) as lease:
        owner = json.loads(lease.content)
        lease.path.write_text(json.dumps(owner | {"started": "1"}))
        assert not is_locked(folder_of(tmp_path))


def test_a_suspended_process_of_this_machine_keeps_its_run(tmp_path):
    holder = Holder(folder_of(tmp_path), leases.machine())
    holder.process.send_signal(signal.SIGSTOP)
    watch = Watch(QUICK)
    seen = []
    until = time.monotonic() + 3 * QUICK.stale_s
    while time.monotonic() < until:
        seen.append(watch.look(folder_of(tmp_path)))
        time.sleep(0.05)
    holder.process.send_signal(signal.SIGCONT)
    assert set(seen) == {"held"}
    assert holder.asked() == "kept\n"


def test_a_living_holder_elsewhere_is_left_alone_and_a_dead_one_succeeded(tmp_path):
    holder = Holder(folder_of(tmp_path), "another")
    with pytest.raises(HeldError):
        lock(folder_of(tmp_path), QUICK).__enter__()
    holder.kill()
    assert is_locked(folder_of(tmp_path))  # a look cannot tell
    begun = time.monotonic()
    with lock(folder_of(tmp_path), QUICK) as lease:
        assert time.monotonic() - begun >= QUICK.stale_s
        lease.confirm()


def test_who_was_suspended_finds_its_run_lost_and_harms_nobody(tmp_path):
    holder = Holder(folder_of(tmp_path), "another")
    holder.process.send_signal(signal.SIGSTOP)
    with lock(folder_of(tmp_path), QUICK) as lease:
        holder.process.send_signal(signal.SIGCONT)
        assert "another worker took this run over" in holder.asked()
        lease.confirm()
        assert is_locked(folder_of(tmp_path))


def test_clocks_of_two_machines_are_not_compared(tmp_path):
    """A holder whose clock is an hour behind, or ahead, lives as long as its beats change."""
    path = folder_of(tmp_path) / leases.FOLDER / "1"
    path.parent.mkdir(parents=True)
    path.write_text(ELSEWHERE)
    watch, seen = Watch(QUICK), []
    for beat in range(20):
        moment = time.time() + 3600 * (-1) ** beat
        os.utime(path, (moment, moment))
        seen.append(watch.look(folder_of(tmp_path)))
        time.sleep(0.06)
    assert seen == ["silent", *["held"] * 19]


def test_a_time_in_which_nobody_could_look_is_not_the_holders_silence(tmp_path, monkeypatch):
    path, now = folder_of(tmp_path) / leases.FOLDER / "1", 0.0
    path.parent.mkdir(parents=True)
    path.write_text(ELSEWHERE)
    monkeypatch.setattr(leases, "awake_s", lambda: now)
    watch = Watch(Pace(beat_s=10.0, stale_s=90.0))
    for moment, seen in ((0, "silent"), (1, "silent"), (100, "silent"), (101, "silent")):
        now = float(moment)
        assert watch.look(folder_of(tmp_path)) == seen
    for now in map(float, range(110, 191, 10)):
        assert watch.look(folder_of(tmp_path)) == ("free" if now >= 190 else "silent")


def test_a_lease_that_cannot_be_read_is_not_called_lost(tmp_path, monkeypatch):
    with lock(folder_of(tmp_path)) as lease:
        read = Path.read_text
        for number, told in ((errno.EIO, OSError), (errno.ESTALE, LeaseLostError)):

            def fails(self: Path, *given: object, number: int = number) -> str:
                raise OSError(number, os.strerror(number), str(self))

            monkeypatch.setattr(Path, "read_text", fails)
            with pytest.raises(told, match="Input/output" if told is OSError else "took this run"):
                lease.confirm()
        monkeypatch.setattr(Path, "read_text", read)
    assert line_of(LeaseLostError("another worker took this run over")) is not None


def test_a_run_with_two_names_is_trained_once(tiny_recipe, tmp_path):
    """Two workers that know its network by different names look before either has its folder."""
    run, quiet = "0" * 12, Runtime(accelerator="cpu", wandb="disabled")
    first, second = tmp_path / f"found-s0-{run}", tmp_path / f"also-s0-{run}"
    with lock(first), pytest.raises(HeldError, match=r"found-s0-0+: this run is there"):
        train(tiny_recipe, run, second, quiet)
    train(tiny_recipe, run, first, quiet)
    with pytest.raises(HeldError, match=r"found-s0-0+: this run is there"):
        train(tiny_recipe, run, second, quiet)


def _race(root: str, start: float, won: multiprocessing.Queue) -> None:
    while time.time() < start:
        pass
    try:
        with lock(Path(root), QUICK) as lease:
            won.put(lease.path.name)
            time.sleep(1.5)
            lease.confirm()
    except HeldError:
        won.put(None)


@pytest.mark.parametrize("left", ["never held", "given back", "silent"])
def test_of_many_that_come_at_once_one_wins(tmp_path, left):
    folder, context = folder_of(tmp_path), multiprocessing.get_context("fork")
    path = folder / leases.FOLDER / "7"
    if left != "never held":
        path.parent.mkdir(parents=True)
        path.write_text(leases.RELEASED if left == "given back" else ELSEWHERE)
    won: multiprocessing.Queue = context.Queue()
    start = time.time() + 0.2
    rivals = [context.Process(target=_race, args=(folder, start, won)) for _ in range(6)]
    for rival in rivals:
        rival.start()
    found = [won.get(timeout=30) for _ in rivals]
    for rival in rivals:
        rival.join(30)
        assert rival.exitcode == 0
    assert sorted(found, key=str)[-5:] == [None] * 5
    assert [name for name in found if name] == ["1" if left == "never held" else "8"]


def test_a_number_that_was_free_again_does_not_make_a_second_holder(tmp_path, monkeypatch):
    """Who judged a lease long ago, and has slept since, may find its next number unused."""
    folder = folder_of(tmp_path)
    with lock(folder):
        pass
    create = leases._create

    def slow(path: Path, content: str) -> bool:
        monkeypatch.setattr(leases, "_create", create)
        for _ in range(3):  # meanwhile others held it, the last of them still does
            holders.append(lock(folder))
            holders[-1].__enter__()
            if len(holders) < 3:
                holders[-1].__exit__(None, None, None)
        return create(path, content)

    holders: list = []
    monkeypatch.setattr(leases, "_create", slow)
    with pytest.raises(HeldError, match="took this run just now"):
        lock(folder).__enter__()
    assert is_locked(folder)
    holders[-1].__exit__(None, None, None)


def test_a_file_system_without_links_has_leases_too(tmp_path, monkeypatch):
    def refuse(*paths: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with lock(folder_of(tmp_path)), pytest.raises(HeldError):
        lock(folder_of(tmp_path)).__enter__()
    with lock(folder_of(tmp_path)):
        pass


def test_a_step_asks_for_its_lease_only_after_it_was_away(tmp_path, monkeypatch):
    with lock(folder_of(tmp_path), QUICK) as lease:
        taken = folder_of(tmp_path) / leases.FOLDER / "2"
        taken.write_text(ELSEWHERE)
        lease._seen = leases.awake_s()
        lease.keep()
        time.sleep(3 * QUICK.beat_s)  # its own beats find it lost, and confirm nothing
        with pytest.raises(LeaseLostError, match="took this run over"):
            lease.keep()
    assert taken.read_text() == ELSEWHERE


def waiting(cell: Cell, store: Store, then: Callable[[], object]) -> list[Cell]:
    """What comes of waiting for a run while, after a moment, something happens to it."""
    timer = threading.Timer(0.5, then)
    timer.start()
    found = await_others([cell], store, QUICK)
    timer.join()
    return found


@pytest.mark.parametrize("machine", [leases.machine(), "another"])
def test_a_worker_waits_for_a_run_of_another_and_takes_it_when_that_dies(tmp_path, machine):
    cell, store = Cell("s", "p", "v", 0, Recipe(), "0123456789ab"), Store(tmp_path)
    folder = tmp_path / f"{cell.recipe.name}-{cell.run_id}"
    holder = Holder(folder, machine)
    begun = time.monotonic()
    assert waiting(cell, store, holder.kill) == [cell]
    assert time.monotonic() - begun >= 0.5


def test_a_worker_waits_until_another_has_finished(tmp_path):
    result = next(of_ladder(Store(COMMITTED)))
    cell, store = Cell("s", "p", "v", 0, Recipe(), result.run_id), Store(tmp_path)
    folder = tmp_path / f"{cell.recipe.name}-{cell.run_id}"
    with lock(folder):
        assert waiting(cell, store, lambda: write_result(folder, result)) == []


def test_what_failed_elsewhere_is_not_waited_for(tmp_path):
    cell, store = Cell("s", "p", "v", 0, Recipe(), "0123456789ab"), Store(tmp_path)
    write_failure(tmp_path / f"{cell.recipe.name}-{cell.run_id}", Failure("E", "m"))
    assert await_others([cell], store, QUICK) == []
