"""A checkpoint looked at before a run goes on from it.

That its content is as it was written, its name says. Here it is asked whether it is one of this
run's network; nothing in it is executed, and one that holds more than tensors and plain values is
refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.errors import UserError

PARTS = {"state_dict": dict, "optimizer_states": list, "lr_schedulers": list, "loops": dict}
NUMBERS = ("epoch", "global_step")


def refuse_foreign(path: Path, module: nn.Module) -> None:
    """Raise UserError where `path` is not a checkpoint of a run of `module`."""
    try:
        problem = _problem(torch.load(path, map_location="cpu", weights_only=True), module)
    except Exception as error:  # there is no end to what reading a damaged file raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        problem = lines[0][:200]
    if problem:
        raise UserError(
            f"{path}: cannot be gone on from: {problem}; remove the file to go on from the one "
            "before it, or to begin this run again"
        )


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
