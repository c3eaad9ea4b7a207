"""Every notebook runs from top to bottom, is short, and is stored without outputs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_four():
    assert [path.stem[0] for path in NOTEBOOKS] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in cells)
    assert {p.name for p in tmp_path.iterdir()} == set()  # nothing is left where one works


def test_nothing_is_left_to_strip():
    strip = [sys.executable, "-m", "nbstripout", "--verify", *map(str, NOTEBOOKS)]
    assert subprocess.run(strip, capture_output=True).returncode == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_short_and_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    lines = "\n".join(cell.source for cell in code).splitlines()
    assert sum(bool(line.strip()) for line in lines) < 80
    assert len(notebook.cells) > len(code) >= 5
    for cell in code:
        ast.parse(cell.source)  # no shell commands, no magic: it would run as a script, too
