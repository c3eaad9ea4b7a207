"""A site of the committed results, and stores that tests write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import spinenet
from experiments.dashboard.site import Site
from experiments.store import Result, Store, write_result

ROOT = Path(spinenet.__file__).parents[1]
STORES = [ROOT / "results" / name for name in ("embedded", "embedded-long")]

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def site() -> Site:
    """The committed results, as they would be exported."""
    return Site(STORES)


@pytest.fixture(scope="session")
def a_result() -> Result:
    """Some committed result."""
    return next(Store(STORES[0]).results())


@pytest.fixture
def write(tmp_path: Path, a_result: Result) -> Write:
    """Writes a run like a committed one, with these fields otherwise; its folder."""

    def run(run_id: str, name: str = "r50-fpn-digits-s0", **fields: Any) -> Path:
        folder = tmp_path / f"{name}-{run_id}"
        write_result(folder, replace(a_result, run_id=run_id, name=name, **fields))
        return folder

    return run
