"""Searches and tables without training: results that follow from the network, written at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from experiments.recipe import to_tree
from experiments.search.asynchronous import make_search
from experiments.search.candidates import Search
from experiments.search.config import SearchConfig
from experiments.store import Result, Store, write_result
from experiments.study import Cell

CONFIG = SearchConfig(space="fish", controller="evolution", samples=60, lag=3, profile="smoke")


def worth(cell: Cell) -> float:
    """A made-up AP that follows from the network."""
    return int(cell.run_id[:4], 16) / 1000


def finish(store: Store, cell: Cell, ap: Callable[[Cell], float] = worth) -> None:
    """Write the result of a run that was never made, and that nobody has finished before."""
    assert store.result(cell.run_id) is None, f"{cell.label} is done twice"
    numbers = dict.fromkeys(("macs_b", "params_m", "train_seconds"), 1.0)
    result = Result(
        run_id=cell.run_id,
        name=cell.recipe.name,
        seed=cell.seed,
        metrics={"AP": ap(cell)},
        seconds=2.0,
        num_classes=11,
        images_per_second=1.0,
        images_seen=1,
        data_fingerprint="x",
        recipe=to_tree(cell.recipe),
        environment={"commit": "0123456789abcdef", "processor": "made up"},
        **numbers,
    )
    write_result(store.folder(cell.run_id, cell.recipe.name), result)


def searching(config: SearchConfig, store: Store, name: str = "mine") -> Search:
    """A search of this name, whose folder is in the store's."""
    folder = store.root / name
    folder.mkdir(parents=True, exist_ok=True)
    return make_search(config, store, folder)


def carried_out(
    search: Search,
    workers: int,
    rng: np.random.Generator,
    stop_after: int | None = None,
    end: Callable[[Store, Cell], None] = finish,
) -> list[str]:
    """Run a search with workers that end in any order; the runs in the order of their start. With
    `stop_after` so many are started and the search is left, as if it had been killed.
    """
    pending: Iterator[Cell | None] = search.cells()
    running: list[Cell] = []
    started: list[str] = []
    is_over = False
    while not is_over or running:
        while len(running) < workers and not is_over:
            try:
                cell = next(pending)
            except StopIteration:
                is_over = True
                break
            if cell is None:
                assert running, "nothing runs, and nothing may start"
                break
            running.append(cell)
            started.append(cell.run_id)
            if stop_after is not None and len(started) > stop_after:
                return started
        if running:
            end(search.store, running.pop(int(rng.integers(len(running)))))
    return started
