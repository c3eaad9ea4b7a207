"""How little a command does before it answers: what it imports, how many files it opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from experiments.counting import counts, free_cores
from experiments.planning import planned_rows, status_rows
from experiments.store import Store
from experiments.study import Cell, Selection, Study, cells
from experiments.study_file import load_profile, load_study
from tests.experiments.helpers import of_ladder

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results" / "embedded"  # with the ladder's grid, complete
HEAVY = {"torch", "torchvision", "timm", "pytorch_lightning", "wandb"}
HEAVY |= {"scipy", "sklearn", "matplotlib"}
SEEDS = 400  # times five variants: two thousand runs


def python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(*arguments: str) -> tuple[set[str], str]:
    """Top-level modules that a command has imported by its end, and what it printed."""
    code = (
        "import sys\n"
        "from experiments.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    *printed, modules = python(code, *arguments).splitlines()
    return set(modules.split()), "\n".join(printed)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("reproduce", "--help"), ("models", "--help"), ("check", "--help")]
)
def test_help_imports_nothing_heavy(arguments):
    found, _ = imported_by(*arguments)
    assert "typer" in found
    assert found & (HEAVY | {"numpy"}) == set()


def test_status_of_a_complete_grid_imports_nothing_heavy():
    found, out = imported_by("status", "ladder", "--runs", str(COMMITTED), "--json")
    assert {row["state"] for row in json.loads(out)} == {"complete"}
    assert found & HEAVY == set()


def test_plan_of_a_complete_grid_imports_nothing_heavy():
    found, out = imported_by("plan", "ladder", "--runs", str(COMMITTED), "--json")
    assert {row["state"] for row in json.loads(out)["cells"]} == {"complete"}
    assert found & HEAVY == set()


def test_a_recipe_is_read_without_torch_and_counted_without_what_it_is_not_made_of(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("SPINENET_CACHE", str(tmp_path))
    code = (
        "import sys\n"
        "from experiments.compose import from_tree, load_recipe\n"
        "from experiments.counting import counts\n"
        "recipe = from_tree(load_recipe('retinanet'), origin='retinanet')\n"
        "print('torch' in sys.modules)\n"
        "print(round(counts(recipe).macs_b, 1))\n"
        "print({'torch', 'torchvision', 'timm', 'pytorch_lightning'} & set(sys.modules))\n"
    )
    assert python(code).split() == ["False", "85.3", "{'torch'}"]
    assert python(code).split() == ["False", "85.3", "set()"]  # known from before


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Selection, list[Cell], Path]:
    """The ladder at so many seeds, every one of its two thousand runs complete."""
    study, profile = load_study("ladder"), load_profile("embedded")
    selection = Selection(profile=profile, seeds=SEEDS)
    grid, root = cells(study, selection), tmp_path_factory.mktemp("runs")
    known = next(of_ladder(Store(COMMITTED)))
    for cell in grid:
        folder = root / f"{cell.recipe.name}-{cell.run_id}"
        folder.mkdir()
        result = replace(known, run_id=cell.run_id, seed=cell.recipe.seed)
        (folder / "result.json").write_text(json.dumps(asdict(result)))
    return study, selection, grid, root


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a file is opened for reading, and a folder listed."""
    counted = {"read": 0, "listed": 0}
    read_bytes, scandir = Path.read_bytes, os.scandir

    def counting_read(path: Path) -> bytes:
        counted["read"] += path.name == "result.json"
        return read_bytes(path)

    def counting_scan(*where):
        counted["listed"] += 1
        return scandir(*where)

    monkeypatch.setattr(Path, "read_bytes", counting_read)
    monkeypatch.setattr(os, "scandir", counting_scan)
    return counted


def test_a_crowded_store_is_listed_once_and_each_result_read_once(crowded, looks):
    study, selection, grid, root = crowded
    assert len(grid) == 5 * SEEDS
    assert {row["state"] for row in status_rows(study, selection, root)} == {"complete"}
    assert looks == {"read": len(grid), "listed": 1}


@pytest.mark.parametrize("rows", [status_rows, planned_rows])
def test_runs_that_nobody_asked_for_are_not_opened(crowded, looks, rows):
    study, selection, _, root = crowded
    few = replace(selection, seeds=3)
    found = rows(study, few, root)
    shown = found if isinstance(found, list) else found["cells"]
    assert [row["state"] for row in shown] == ["complete"] * 15
    assert looks == {"read": 15, "listed": 1}


COST = """
import contextlib, io, json, resource, sys
from experiments.cli import main

with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
used = resource.getrusage(resource.RUSAGE_SELF)
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss * unit]))
"""


@pytest.mark.parametrize("command", ["plan", "status", "table"])
def test_ten_thousand_runs_would_take_seconds_and_little_memory(crowded, tmp_path, command):
    """Two thousand take a fifth of 5 s of the processor, beyond what an empty store takes."""
    *_, grid, root = crowded
    costs = {}
    for store, seeds in ((tmp_path, 1), (root, SEEDS)):
        given = [command, "ladder", "--seeds", str(seeds), "--runs", str(store)]
        costs[store] = json.loads(python(COST, *given))
    seconds, memory = (costs[root][k] - costs[tmp_path][k] for k in (0, 1))
    assert seconds / len(grid) < 5 / 10_000
    assert memory / len(grid) < 50_000  # bytes of a run


def test_a_network_is_counted_once_for_all_its_seeds(crowded, monkeypatch, tmp_path):
    monkeypatch.setenv("SPINENET_CACHE", str(tmp_path))
    study, selection, _, root = crowded
    here = next(Store(root).results()).environment["processor"]
    monkeypatch.setattr("experiments.pricing.processor", lambda: here)
    counted = []

    def counting(recipe, num_classes=None):
        counted.append(recipe)
        return counts(recipe, num_classes)

    monkeypatch.setattr("experiments.counting.counts", counting)
    more = replace(selection, seeds=SEEDS + 2, only=("spinenet-49",))
    rows = planned_rows(study, more, root)["cells"]
    prices = [row["price_s"] for row in rows if row["state"] == "missing"]
    assert len(prices) == 2
    assert prices[0] == prices[1] > 0
    assert len(counted) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="counting forks on Linux only")
def test_several_processes_count_what_the_page_of_counts_says():
    code = (
        "from experiments.inspection import model_tables\n"
        "print(*(table.markdown() for table in model_tables(2)), sep='\\n')\n"
    )
    page = (ROOT / "docs" / "counts.md").read_text()
    block = page.partition("<!-- table: models -->")[2].partition("<!-- end -->")[0]
    assert python(code).strip() == block.strip()


def test_counting_does_not_fork_a_process_with_other_threads():
    waiting = threading.Event()
    other = threading.Thread(target=waiting.wait)
    other.start()
    try:
        assert free_cores() == 1
    finally:
        waiting.set()
        other.join()
