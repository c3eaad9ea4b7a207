"""How a run is carried out: where, by how many processes, and what is told of it.

None of this is part of a recipe. Nothing here imports torch, so that what only hands runs on does
not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.study import PaperValue

if TYPE_CHECKING:
    from experiments.tracking import WandbMode


@dataclass(frozen=True)
class Processes:
    """Over which processes a run is spread, and which of them this one is.

    There are `devices` on each of `nodes` machines, with a GPU each where there are any; this is
    number `local` on machine `node`. They meet at `port` of `address`, machine 0; port 0 is a free
    one, which only a machine by itself can choose.
    """

    devices: int = 1
    nodes: int = 1
    node: int = 0
    local: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        if self.devices < 1 or self.nodes < 1:
            raise ValueError(f"devices {self.devices} and nodes {self.nodes} must be at least 1")
        if self.nodes > 1 and not self.port:
            raise ValueError(f"{self.nodes} machines need the port at which they meet")

    @property
    def count(self) -> int:
        """Of all machines."""
        return self.devices * self.nodes

    @property
    def rank(self) -> int:
        """This process among all; 0 is the one that records the run."""
        return self.node * self.devices + self.local


def default_accelerator() -> str:
    """The GPU if there is one. Apple's is left out: it lacks the float64 that suppression needs."""
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Runtime:
    """How a run is carried out, none of which changes its result.

    `processes` share its batches, and `device` counts GPUs in groups of as many. `recompute` saves
    memory by running blocks twice. `weights` is the file of a recipe's `train.start`, found by its
    content. `wandb_artifacts` gives W&B the last and the best weights. `paper` has the printed
    values of the variant by study, for W&B's summary. `cells` are the entries of grids that ask for
    the run. A checkpoint is written every `checkpoint_s` within an epoch, and at its end.
    """

    accelerator: str = field(default_factory=default_accelerator)
    device: int = 0
    processes: Processes = field(default_factory=Processes)
    num_workers: int = 0
    recompute: bool = False
    weights: Path | None = None
    wandb: WandbMode = "auto"
    wandb_artifacts: bool = False
    group: str = ""
    paper: Mapping[str, Mapping[str, PaperValue]] = field(default_factory=dict)
    cells: tuple[str, ...] = ()
    progress_bar: bool = False
    checkpoint_s: float = 300.0
