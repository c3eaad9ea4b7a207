"""A grid under two workers, with processes killed at any instant, ends as if none had been: every
result equal to the bit, none lost, none made twice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.grid import make_plan
from experiments.leases import FOLDER, is_locked
from experiments.store import Store, read_result
from experiments.study import Cell
from experiments.study_file import load_study
from experiments.subprocesses import environment
from tests.experiments.helpers import run_grid, smoke_cells

WORKER = Path(__file__).with_name("chaos_worker.py")
LONG = {"train.epochs": 2, "train.batch_size": 4, "data.transform.side": 64}
VARIANTS = ("r50-fpn", "spinenet-49")
LONGEST_S = 1200.0


@dataclass
class Chaos:
    """Two workers on one store, killed and started again until their grid is complete."""

    store: Store
    grid: list[Cell]
    kills: int  # from outside and, where there is a chance of it, by own hand
    chance: float  # of dying at a write, as long as there are kills left
    rng: random.Random
    pause_s: tuple[float, float]  # shortest and longest between kills
    options: tuple[str, ...] = ()
    killed: dict[str, int] = field(default_factory=lambda: {"worker": 0, "run": 0})
    workers: list[subprocess.Popen] = field(default_factory=list)
    completed: dict[str, tuple[int, int]] = field(default_factory=dict)

    def run(self) -> None:
        """Until all is done. Each worker that is gone is started again."""
        deadline = time.monotonic() + LONGEST_S
        self.workers = [self._start(), self._start()]
        try:
            while not self._is_done():
                assert time.monotonic() < deadline, self.killed
                time.sleep(self.rng.uniform(*self.pause_s))
                if self._has_kills:
                    self._kill()
                gone = [w for w in self.workers if w.poll() is not None]
                for worker in gone:
                    self.workers[self.workers.index(worker)] = self._start()
            for worker in self.workers:
                worker.wait(120)
        finally:
            for worker in self.workers:
                worker.kill()

    def _start(self) -> subprocess.Popen:
        chance = self.chance if self._has_kills else 0.0
        given = f"{self.store.root} {chance} {self.rng.randrange(10**6)}"
        with Path(f"{self.store.root}.log").open("a") as said:
            return subprocess.Popen(
                [sys.executable, str(WORKER), *self.options],
                stdout=said,
                stderr=said,
                env=environment(OMP_NUM_THREADS="1", CHAOS=given),
            )

    def _kill(self) -> None:
        """A worker, or a process that trains, whatever it is doing; none until some run is under
        way, for most of a worker's life is its start.
        """
        if not (runs := list(self._run_processes())):
            return
        kind = self.rng.choice(["worker", "run", "run", "run"])
        victims = runs if kind == "run" else [w.pid for w in self.workers if w.poll() is None]
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.rng.choice(victims), signal.SIGKILL)
            self.killed[kind] += 1

    def _run_processes(self) -> Iterator[int]:
        for lease in self.store.root.glob(f"*/{FOLDER}/*"):
            try:
                owner = json.loads(lease.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(owner, dict) and is_locked(lease.parents[1]):
                yield int(owner["pid"])

    def _is_done(self) -> bool:
        """Whether all are complete; a result that is there is never written again."""
        for cell in self.grid:
            folder = self.store.find(cell.run_id)
            if folder is not None and (folder / "result.json").is_file():
                found = (folder / "result.json").stat()
                seen = (found.st_ino, found.st_mtime_ns)
                assert self.completed.setdefault(cell.run_id, seen) == seen
        return len(self.completed) == len(self.grid)

    @property
    def _has_kills(self) -> bool:
        return sum(self.killed.values()) + len(self.deaths) < self.kills

    @property
    def deaths(self) -> list[str]:
        """Where processes ended by their own hand."""
        path = Path(f"{self.store.root}.deaths")
        return path.read_text().splitlines() if path.is_file() else []


def assert_equal_runs(grid: list[Cell], store: Store, undisturbed: Store) -> None:
    """Every run of the grid is complete in both, the same to the bit, and was finished once."""
    assert make_plan(grid, store).count("complete") == len(grid)
    assert len(store.folders()) == len(grid)
    for cell in grid:
        mine, theirs = store.find(cell.run_id), undisturbed.find(cell.run_id)
        assert mine is not None
        assert theirs is not None
        for name in ("detections.json", "history.jsonl"):
            assert (mine / name).read_bytes() == (theirs / name).read_bytes(), cell.label
        weights, others = (load_file(f / "weights.safetensors") for f in (mine, theirs))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[key], others[key]) for key in weights), cell.label
        results = read_result(mine), read_result(theirs)
        assert results[0] is not None
        assert results[1] is not None
        assert results[0].metrics == results[1].metrics
        assert (mine / "train.log").read_text().count(" done: ") <= 1
        assert not (mine / "failure.json").exists()
        assert not is_locked(mine)


def longest_s(undisturbed: Store) -> float:
    """Of a run on this machine as fast as it is now: killed within that, runs end early, late, and
    sometimes not at all.
    """
    return max(result.seconds for result in undisturbed.results())


def test_a_grid_survives_a_few_kills(smoke_grid, tmp_path):
    _, grid, undisturbed = smoke_grid
    pause_s = (0.0, longest_s(undisturbed))
    chaos = Chaos(Store(tmp_path / "runs"), grid, 4, 0.01, random.Random(1), pause_s)
    chaos.run()
    assert sum(chaos.killed.values()) + len(chaos.deaths) >= 4
    assert_equal_runs(grid, chaos.store, undisturbed)


@pytest.fixture(scope="module")
def long_grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Cell], Store]:
    """Eight cells of eight steps, run once in peace."""
    study, store = load_study("ladder"), Store(tmp_path_factory.mktemp("undisturbed"))
    grid = [c for c in smoke_cells(study, seeds=4, changes=LONG) if c.variant in VARIANTS]
    run_grid(study, grid, store)
    return grid, store


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2))
def test_a_grid_survives_many_kills(long_grid, tmp_path, seed):
    grid, undisturbed = long_grid
    chosen = [word for name in VARIANTS for word in ("--only", name)]
    chosen += [word for key, value in LONG.items() for word in ("--set", f"{key}={value}")]
    store, rng = Store(tmp_path / "runs"), random.Random(seed)
    pause_s = (0.0, longest_s(undisturbed))
    chaos = Chaos(store, grid, 24, 0.02, rng, pause_s, ("--seeds", "4", *chosen))
    chaos.run()
    print(f"killed {chaos.killed}, and {len(chaos.deaths)} died at a write: {chaos.deaths}")
    assert sum(chaos.killed.values()) + len(chaos.deaths) >= 24
    assert chaos.killed["worker"]
    assert chaos.killed["run"]
    assert chaos.deaths
    assert_equal_runs(grid, store, undisturbed)
