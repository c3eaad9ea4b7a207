"""The state after the last whole epoch, looked at before a run goes on from it.

A checkpoint lies on a disk for days, so its checksums are compared first; torch does not look at
them. Nothing in it is executed: a file that holds more than tensors and plain values is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import nn

from experiments.errors import UserError

LAST = Path("checkpoints", "last.ckpt")  # in a run's folder
PARTS = {"state_dict": dict, "optimizer_states": list, "lr_schedulers": list, "loops": dict}
NUMBERS = ("epoch", "global_step")


def last_checkpoint(folder: Path, module: nn.Module) -> tuple[Path | None, int]:
    """The checkpoint that the run of `module` in `folder` goes on from, and the optimiser's step
    there; None and 0 for a run that is to begin.

    Raises UserError where the file is damaged, or is another's.
    """
    path = folder / LAST
    return (path, checkpoint_step(path, module)) if path.is_file() else (None, 0)


def checkpoint_step(path: Path, module: nn.Module) -> int:
    """The optimiser's step at which the checkpoint of `module` was written.

    Raises UserError where the file is damaged, or is another's.
    """
    try:
        state = _load(path)
        problem = _problem(state, module)
    except Exception as error:  # there is no end to what reading a damaged file raises
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        problem = first[0][:200]
    if problem:
        raise UserError(
            f"{path}: cannot be gone on from: {problem}; remove the file to begin this run again"
        )
    return int(state["global_step"])


def _load(path: Path) -> Any:
    with ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    return torch.load(path, map_location="cpu", weights_only=True)


def _problem(state: Any, module: nn.Module) -> str:
    """What keeps a run from going on from `state`; empty where nothing does."""
    if not isinstance(state, dict):
        return "it is no checkpoint of a run"
    for name in NUMBERS:
        if not isinstance(state.get(name), int) or state[name] < 0:
            return f"{name} is missing or no number"
    for name, kind in PARTS.items():
        if not isinstance(state.get(name), kind):
            return f"{name} is missing or no {kind.__name__}"
    mine = {key: value.shape for key, value in module.state_dict().items()}
    theirs = {key: getattr(value, "shape", None) for key, value in state["state_dict"].items()}
    if different := sorted(key for key in mine | theirs if mine.get(key) != theirs.get(key)):
        return f"it is of another network, which differs in {different[0]}"
    return ""
