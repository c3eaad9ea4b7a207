"""How large a batch fits into memory, found by trying.

After a run has run out of memory, two of its training steps are tried in a process of its own with
ever larger parts of the batch. The process says each that went well, so its own end, however rough,
is part of the answer. It lives under this process's limits and beside whatever else the machine
does now.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments.recipe import Recipe, to_tree
from experiments.subprocesses import environment

if TYPE_CHECKING:
    from experiments.runtime import Runtime

log = logging.getLogger(__name__)

CHILD = "from experiments.memory import try_batches; try_batches()"
STEPS = 2  # the optimiser's own memory is there from the second on
LONGEST_S = 180.0  # of each search


@dataclass(frozen=True)
class Room:
    """Of `asked` pictures at once, one process's share, which did not fit, `fits` do (0: not even
    one); whether all do with `--recompute`.
    """

    asked: int
    fits: int
    all_with_recompute: bool


def room(recipe: Recipe, runtime: Runtime) -> Room:
    """What fits of a recipe's batch, or of its parts, on the runtime's device."""
    asked = recipe.train.batch_size // recipe.train.accumulate // runtime.processes.count
    log.info("looking for a batch that fits, smaller than %d", asked)
    fits = _largest(recipe, runtime, parts(asked))
    saving = replace(runtime, recompute=True)
    saved = not runtime.recompute and _largest(recipe, saving, [asked]) == asked
    return Room(asked, fits, saved)


def parts(batch: int) -> list[int]:
    """Batches that divide `batch`, each about half of the next, rising: 24 → [1, 3, 6, 12]."""
    found = []
    while batch > 1:
        batch = next(n for n in range(batch // 2, 0, -1) if batch % n == 0)
        found.append(batch)
    return found[::-1]


def _largest(recipe: Recipe, runtime: Runtime, batches: list[int]) -> int:
    """The largest of `batches` that trains in another process; 0 where none does."""
    task = {
        "recipe": to_tree(recipe),
        "accelerator": runtime.accelerator,
        "device": runtime.device * runtime.processes.devices,
        "recompute": runtime.recompute,
        "batches": batches,
    }
    try:
        said = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=json.dumps(task).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            timeout=LONGEST_S,
        ).stdout
    except subprocess.TimeoutExpired as slow:
        said = slow.stdout or b""
    except OSError:  # no memory to start it
        said = b""
    return max(map(int, said.split()), default=0)


def try_batches() -> None:
    """Of the child: train with each batch that standard input names, and print those that went
    well.
    """
    import timm  # noqa: F401  a run has it loaded, too

    from experiments.allocator import keep_freed_memory
    from experiments.compose import from_tree
    from experiments.networks import build
    from experiments.tasks import datamodule, make_module
    from spinenet.recompute import recompute_blocks

    keep_freed_memory()  # as a run does, which takes more for it
    asked = json.load(sys.stdin)
    recipe = from_tree(asked["recipe"], origin="recipe")
    data = datamodule(recipe)
    data.prepare_data()
    data.setup("fit")
    model = build(recipe, data.num_classes)
    if asked["recompute"]:
        recompute_blocks(model.backbone)  # type: ignore[arg-type]
    module = make_module(model, recipe, data)
    for batch in asked["batches"]:
        data.batch_size = batch
        _train(module, data.train_dataloader(), recipe, asked)
        print(batch, flush=True)


def _train(module: Any, loader: Any, recipe: Recipe, asked: dict[str, Any]) -> None:
    """A few steps as a run makes them, without what a run writes."""
    import pytorch_lightning as pl
    import torch

    from experiments.assembly import PRECISIONS
    from experiments.callbacks import moving_average

    torch.set_num_threads(recipe.train.threads)

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
            trainer.should_stop = trainer.global_step >= STEPS

    average = [moving_average(recipe.train.ema_decay)] if recipe.train.ema_decay else []
    pl.Trainer(
        accelerator=asked["accelerator"],
        devices=[asked["device"]] if asked["accelerator"] == "gpu" else 1,
        max_epochs=recipe.train.epochs,
        precision=PRECISIONS[recipe.train.precision],  # type: ignore[arg-type]
        gradient_clip_val=recipe.optim.clip_norm or None,
        limit_val_batches=0,
        callbacks=[Stop(), *average],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    ).fit(module, train_dataloaders=loader)
