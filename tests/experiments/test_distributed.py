"""Two processes that share the pictures end with the scores and files of one."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import multiprocessing
from torch.utils.data import DataLoader

from datamodules.sampling import current_rank
from experiments.tasks import datamodule, make_module
from experiments.weights import read_weights

# The keys that a sampler gives to each rank where it deals some pictures out twice.
PADDED = ([(0, 0), (0, 2), (0, 4), (0, 1)], [(0, 1), (0, 3), (0, 5), (0, 0)])


def validated(file: Path, padded: bool = False, **trainer: Any) -> dict[str, Any]:
    """Metrics and files of the weights in `file` on their data."""
    torch.set_num_threads(1)
    weights = read_weights(file)
    data = datamodule(weights.recipe)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "use_distributed_sampler": False}
    runner = pl.Trainer(accelerator="cpu", devices=1, **quiet, **trainer)
    data.prepare_data()
    data.setup("validate")
    module = make_module(weights.network(), weights.recipe, data)
    if padded:
        loader = DataLoader(data.val_set, 2, sampler=PaddedKeys())
        runner.validate(module, loader, verbose=False)
    else:
        runner.validate(module, datamodule=data, verbose=False)
    _, files = module.final()
    assert module.scores is not None
    return {"metrics": module.scores.metrics, "files": files}


class PaddedKeys:
    """Every rank's share of six pictures, and some of the other's."""

    def __len__(self) -> int:
        return len(PADDED[0])

    def __iter__(self) -> Any:
        return iter(PADDED[current_rank()[0]])


def one_of_two(rank: int, port: int, cases: list[tuple[Path, bool]], out: Path) -> None:
    """A process that validates its share of each case, as a node of a cluster of two."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": str(rank), "LOCAL_RANK": "0"}
    found = [validated(file, padded, strategy="ddp", num_nodes=2) for file, padded in cases]
    assert current_rank() == (rank, 2)
    (out / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_two_processes_score_what_one_does_each_picture_once(
    weights_file: Path, classifier_file: Path, tmp_path: Path
):
    cases = [(weights_file, False), (weights_file, True), (classifier_file, False)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, cases, tmp_path), nprocs=2)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    detector, classifier = (validated(file) for file in (weights_file, classifier_file))
    assert detector["metrics"]["AP"] > 0
    assert len({row["image_id"] for row in detector["files"]["detections.json"]}) == 6
    for found, alone in zip(one, (detector, detector, classifier), strict=True):
        assert found["metrics"] == pytest.approx(alone["metrics"])
        assert_same(found["files"], alone["files"])


def assert_same(found: Any, expected: Any) -> None:
    """Equal but for the last digits that another size of batch costs."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert_same(mine, theirs)
    else:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-3)
