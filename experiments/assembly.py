"""What a run is made of: data, network, Lightning's module and trainer, from a recipe and how it is
to be carried out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn

from experiments import capturing
from experiments.callbacks import FrozenNorms, moving_average
from experiments.checkpoints import CheckedIO, Checkpoints, latest
from experiments.distributed import share, share_norms, trainer_options
from experiments.errors import UserError
from experiments.leases import Lease
from experiments.module import TaskModule, steps_per_epoch
from experiments.networks import build, compile_network
from experiments.recipe import Recipe
from experiments.resuming import refuse_foreign
from experiments.runtime import Runtime
from experiments.starting import start_network
from experiments.stopping import Stop
from experiments.tasks import DataModule, datamodule, make_module
from experiments.tracking import LOG_EVERY, HistoryLogger
from spinenet.recompute import recompute_blocks

log = logging.getLogger(__name__)

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Hold:
    """A run as long as this process has it: its folder, the lease, and whether it is to stop. A
    process that only shares in the run has no lease of its own.
    """

    folder: Path
    lease: Lease | None
    stop: Stop

    def confirm(self) -> None:
        """Raise LeaseLostError unless the run is still this process's; asked before it writes."""
        if self.lease is not None:
            self.lease.confirm()

    def keep(self) -> None:
        """`confirm` where this process was away; it costs nothing otherwise."""
        if self.lease is not None:
            self.lease.keep()


def read_data(recipe: Recipe, runtime: Runtime) -> DataModule:
    """The recipe's data, read, in batches of this process's share. Raises UserError where a process
    would have nothing to validate on, for which the others would wait.
    """
    each = share(recipe.train, runtime.processes)
    data = datamodule(recipe, runtime.num_workers, each)
    data.prepare_data()
    data.setup("fit")
    if len(data.val_set) < runtime.processes.count:
        raise UserError(
            f"{data.described('val')}, fewer than the {runtime.processes.count} processes that "
            "share them; use fewer --devices"
        )
    return data


def make_network(recipe: Recipe, runtime: Runtime, data: DataModule) -> nn.Module:
    """The recipe's network, with the weights that it starts from, if it does."""
    model = build(recipe, data.num_classes)
    if recipe.train.start:
        for line in start_network(model, recipe, runtime.weights, data.class_names):
            log.info(line)
    return model


def ready_module(
    model: nn.Module, recipe: Recipe, runtime: Runtime, data: DataModule
) -> TaskModule:
    """The network made ready to be trained as the runtime says."""
    if runtime.recompute:
        recompute_blocks(model.backbone)  # type: ignore[arg-type]
    model = share_norms(model, recipe, runtime)
    if recipe.train.compile:
        compile_network(model)
    return make_module(model, recipe, data)


def make_trainer(
    recipe: Recipe,
    hold: Hold,
    runtime: Runtime,
    data: DataModule,
    callbacks: list[Callback],
    trackers: list[Any],
) -> tuple[pl.Trainer, Path | None]:
    """Lightning's trainer for a recipe, and the checkpoint to go on from, if there is one."""
    hold.confirm()  # reading data may have taken long
    resume, step = latest(hold.folder) or (None, 0)
    if resume:
        log.info("goes on from step %d", step)
    loggers: list[Any] = []
    if runtime.processes.rank == 0:
        loggers = [HistoryLogger(hold.folder, resume_step=step, keep=hold.keep), *trackers]
    saver = Checkpoints(
        folder=hold.folder,
        lease=hold.lease,
        stop=hold.stop,
        every_s=runtime.checkpoint_s,
        resumed=resume.name if resume else "none",
    )
    accumulate, steps = recipe.train.accumulate, steps_per_epoch(recipe, data)
    if recipe.train.frozen_norms:
        callbacks = [*callbacks, FrozenNorms(recipe.train.frozen_norms)]
    if capturing.pays(recipe, runtime):
        callbacks = [*callbacks, capturing.Captured()]
    if recipe.train.ema_decay:
        callbacks = [*callbacks, moving_average(recipe.train.ema_decay)]
    trainer = pl.Trainer(
        accelerator=runtime.accelerator,
        **trainer_options(runtime.processes, runtime.accelerator, runtime.device),
        max_epochs=recipe.train.epochs,
        precision=PRECISIONS[recipe.train.precision],  # type: ignore[arg-type]
        gradient_clip_val=recipe.optim.clip_norm or None,
        accumulate_grad_batches=accumulate,
        # Parts that fill no whole batch would be a step of their own.
        limit_train_batches=steps * accumulate if accumulate > 1 else None,
        check_val_every_n_epoch=recipe.eval.every_epochs,
        callbacks=[*callbacks, saver],
        # The environment is named, since Lightning would else take SLURM's signals for its own.
        plugins=[LightningEnvironment(), CheckedIO()],
        logger=loggers,
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic=_determinism(recipe, runtime),  # type: ignore[arg-type]
        enable_progress_bar=runtime.progress_bar,
        enable_model_summary=False,
        default_root_dir=hold.folder,
    )
    # Deterministic algorithms bring this along; nothing here reads what nothing has written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer, resume


def _determinism(recipe: Recipe, runtime: Runtime) -> bool | str:
    """Everywhere, but for Mask R-CNN on a GPU: there torchvision takes an RoIAlign in Python, which
    it compiles for most of a minute and which holds each sample of each region in memory.
    """
    return False if runtime.accelerator == "gpu" and recipe.model.kind == "mask-rcnn" else "warn"


def fit(trainer: pl.Trainer, module: TaskModule, data: DataModule, resume: Path | None) -> None:
    """Train to the end, and validate there."""
    if resume:
        refuse_foreign(resume, module)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    has_validated = trainer.current_epoch % module.recipe.eval.every_epochs == 0
    if has_validated and module.scores is None:
        trainer.loggers = []  # an earlier process did, and it is in the history
    if not has_validated or module.scores is None:
        trainer.validate(module, datamodule=data, verbose=False)
