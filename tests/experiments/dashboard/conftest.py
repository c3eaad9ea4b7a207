"""A site of the committed results and of two small searches, and stores that tests write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import spinenet
from experiments.dashboard.site import Site
from experiments.recipe import to_tree
from experiments.search.asynchronous import make_search
from experiments.search.candidates import Search
from experiments.search.config import SearchConfig, keep_settings
from experiments.store import Result, Store, write_result
from experiments.study import Cell

ROOT = Path(spinenet.__file__).parents[1]
STORES = [ROOT / "results" / name for name in ("embedded", "embedded-long")]
FISH = SearchConfig(space="fish", controller="random", samples=12, lag=2, profile="smoke")
EVOLVED = replace(FISH, controller="evolution", seed=1)

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, a_result: Result) -> Path:
    """A folder with the runs of two searches of one space, the second of which goes on."""
    root = tmp_path_factory.mktemp("searched")
    carry_out(root, "by-chance", FISH, a_result)
    carry_out(root, "evolved", EVOLVED, a_result, ends=7)
    return root


@pytest.fixture(scope="session")
def site(searched: Path) -> Site:
    """The committed results and the searches, as they would be exported."""
    return Site([*STORES, searched / "runs"], searches=[searched / "searches"])


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


def carry_out(
    root: Path, name: str, config: SearchConfig, like: Result, ends: int | None = None
) -> Search:
    """A search whose runs were never made: each result follows from its network. Stops after so
    many ends.
    """
    keep_settings(root / "searches" / name, config)
    search = make_search(config, Store(root / "runs"), root / "searches" / name)
    for count, cell in enumerate(search.cells(), start=1):
        assert cell is not None
        end(search.store, cell, like)
        if count == ends:
            break
    search.replay()
    return search


def end(store: Store, cell: Cell, like: Result, ap: float | None = None) -> None:
    """Write a made-up result of a candidate's run."""
    number = int(cell.run_id[:4], 16)
    worth = number / 1000 if ap is None else ap
    fields: dict[str, Any] = {"metrics": {"AP": worth}, "macs_b": 0.1 + number % 7 / 100}
    fields |= {"run_id": cell.run_id, "name": cell.recipe.name, "recipe": to_tree(cell.recipe)}
    fields["cells"] = []
    write_result(store.folder(cell.run_id, cell.recipe.name), replace(like, **fields))
