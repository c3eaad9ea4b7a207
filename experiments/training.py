"""One run: a recipe and a folder in, a result out.

A run that was stopped goes on from its last checkpoint. Since every augmentation is drawn from
(seed, epoch, sample) and the order from (seed, epoch), it then ends as the undisturbed run would
have.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn

from experiments.allocator import keep_freed_memory
from experiments.callbacks import (
    BEST,
    BestWeights,
    Event,
    FiniteLoss,
    FrozenNorms,
    Report,
    Send,
    device_name,
    moving_average,
)
from experiments.checkpoints import CheckedIO, Checkpoints, latest
from experiments.distributed import (
    deviations,
    share,
    share_norms,
    together,
    trainer_options,
)
from experiments.distributed import facts as facts_of_sharing
from experiments.leases import Lease, LeaseLostError, clear, lock
from experiments.module import TaskModule
from experiments.networks import build, compile_network
from experiments.progress import ProgressFile
from experiments.provenance import environment
from experiments.recipe import Recipe, to_tree
from experiments.runtime import Runtime
from experiments.starting import start_network
from experiments.stopping import Stop, stoppable
from experiments.store import (
    Failure,
    Result,
    read_result,
    write_atomically,
    write_failure,
    write_result,
)
from experiments.tasks import DataModule, datamodule, make_module
from experiments.tracked_media import media, start_drawing
from experiments.tracking import LOG_EVERY, HistoryLogger, SafeWandbLogger, rows, wandb_logger
from experiments.weights import WEIGHTS, labels_of, write_weights
from spinenet.complexity import Complexity, complexity
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


def train(
    recipe: Recipe, run_id: str, folder: Path, runtime: Runtime, send: Send = lambda event: None
) -> Result:
    """Train `recipe` in `folder` and write its result. A failure is recorded in the folder and
    raised again.

    Raises HeldError if another worker has the run, LeaseLostError if one took it over, and Stopped
    when it was asked to stop; none of them is a failure.
    """
    with lock(folder) as lease, stoppable() as stop, _log_to(folder / "train.log"):
        result = read_result(folder)  # another worker may have finished it before this one's turn
        if result is None:
            result = _attempt(recipe, run_id, Hold(folder, lease, stop), runtime, send)
    clear(folder)
    return result


def _attempt(recipe: Recipe, run_id: str, hold: Hold, runtime: Runtime, send: Send) -> Result:
    """Train, with progress and failure written into the run's folder."""
    folder = hold.folder
    (folder / "failure.json").unlink(missing_ok=True)
    keep_freed_memory()
    progress = ProgressFile(folder, recipe.train.batch_size)

    def tell(event: Event) -> None:
        progress.take(event)
        try:
            send(event)
        except BrokenPipeError:
            hold.stop.ask()  # whoever started this run is no more, and would start it again

    try:
        with together(recipe, folder, runtime) as shared:
            result = _train(recipe, run_id, hold, shared, tell)
        progress.remove()
        return result
    except LeaseLostError as lost:
        log.error("%s", lost)
        raise
    except Exception as error:
        hold.confirm()
        write_failure(folder, Failure(type(error).__name__, str(error), traceback.format_exc()))
        log.error("failed: %s: %s", type(error).__name__, error)
        raise


def _train(recipe: Recipe, run_id: str, hold: Hold, runtime: Runtime, send: Send) -> Result:
    folder = hold.folder
    start = time.perf_counter()
    torch.set_num_threads(recipe.train.threads)
    facts = _begin(recipe, run_id, folder, runtime)
    data = _data(recipe, runtime)
    model = _network(recipe, runtime, data)
    counts = complexity(model, recipe.data.transform.side)
    module = _module(model, recipe, runtime, data)

    def write(path: Path) -> None:
        write_weights(path, model, recipe, labels_of(data))

    report = Report(send)
    tracker = _tracker(recipe, run_id, folder, runtime, counts, facts)
    drawing = tracker.attempt(lambda: start_drawing(recipe, folder / "wandb")) if tracker else None
    callbacks: list[Callback] = [report, FiniteLoss()]
    if tracker and runtime.wandb_artifacts:
        callbacks.append(BestWeights(folder, write))
    trainer, resume = _trainer(recipe, hold, runtime, callbacks, [tracker] if tracker else [])
    _fit(trainer, module, data, resume)
    hold.confirm()

    final, files = module.final()
    for name, content in files.items():
        write_atomically(folder / name, json.dumps(content))
    write(folder / WEIGHTS)
    if tracker:
        tracker.log_media(lambda: media(module, data, drawing), trainer.global_step)
    result = Result(
        run_id=run_id,
        name=recipe.name,
        seed=recipe.seed,
        metrics=final.metrics,
        by_class=final.by_class,
        macs_b=counts.macs_b,
        params_m=counts.params_m,
        num_classes=data.num_classes,
        seconds=time.perf_counter() - start,
        train_seconds=report.train_seconds,
        images_per_second=report.images / max(report.train_seconds, 1e-9),
        images_seen=data.batches_per_epoch * recipe.train.batch_size * recipe.train.epochs,
        data_fingerprint=data.fingerprint,
        recipe=to_tree(recipe),
        environment=facts,
        deviates=[*recipe.deviates, *deviations(recipe, runtime)],
        cells=list(runtime.cells),
    )
    if tracker:
        result = _conclude(tracker, result, folder, runtime)
    hold.confirm()
    write_result(folder, result)
    value = result.metrics[module.metric]
    log.info("done: %s %.2f in %.0f s", module.metric, value, result.seconds)
    return result


def follow(recipe: Recipe, folder: Path, runtime: Runtime) -> None:
    """Take the steps of a run whose first process `train`s it, and record nothing. Raises Stopped
    when any of its processes was asked to stop.
    """
    with together(recipe, folder, runtime) as shared, stoppable() as stop, _log_to(None):
        torch.set_num_threads(recipe.train.threads)
        data = _data(recipe, shared)
        module = _module(_network(recipe, shared, data), recipe, shared, data)
        hold = Hold(folder, None, stop)
        trainer, resume = _trainer(recipe, hold, shared, [FiniteLoss()], [])
        _fit(trainer, module, data, resume)


def _begin(recipe: Recipe, run_id: str, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Write down what is run and where; the latter."""
    facts = environment() | facts_of_sharing(runtime)
    write_atomically(folder / "recipe.yaml", yaml.safe_dump(to_tree(recipe), sort_keys=False))
    write_atomically(folder / "environment.json", json.dumps(facts, indent=1))
    log.info(
        "run %s (%s), commit %s, on %s", run_id, recipe.name, facts["commit"][:10], device_name()
    )
    return facts


def _data(recipe: Recipe, runtime: Runtime) -> DataModule:
    """The recipe's data, read, in batches of this process's share."""
    each = share(recipe.train.batch_size, runtime.processes)
    data = datamodule(recipe, runtime.num_workers, each)
    data.prepare_data()
    data.setup("fit")
    return data


def _network(recipe: Recipe, runtime: Runtime, data: DataModule) -> nn.Module:
    """The recipe's network, with the weights that it starts from, if it does."""
    model = build(recipe, data.num_classes)
    if recipe.train.start:
        for line in start_network(model, recipe, runtime.weights, data.class_names):
            log.info(line)
    return model


def _module(model: nn.Module, recipe: Recipe, runtime: Runtime, data: DataModule) -> TaskModule:
    """The network made ready to be trained as the runtime says."""
    if runtime.recompute:
        recompute_blocks(model.backbone)  # type: ignore[arg-type]
    model = share_norms(model, recipe, runtime)
    if recipe.train.compile:
        compile_network(model)
    return make_module(model, recipe, data)


def _fit(trainer: pl.Trainer, module: TaskModule, data: DataModule, resume: Path | None) -> None:
    """Train to the end, and validate there."""
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    has_validated = trainer.current_epoch % module.recipe.eval.every_epochs == 0
    if has_validated and module.scores is None:
        trainer.loggers = []  # an earlier process did, and it is in the history
    if not has_validated or module.scores is None:
        trainer.validate(module, datamodule=data, verbose=False)


def _tracker(
    recipe: Recipe,
    run_id: str,
    folder: Path,
    runtime: Runtime,
    counts: Complexity,
    facts: dict[str, Any],
) -> SafeWandbLogger | None:
    """W&B's logger, which knows the run by the recipe and by what else tells it from others."""
    return wandb_logger(
        runtime.wandb,
        folder=folder,
        run_id=run_id,
        name=recipe.name,
        group=runtime.group,
        tags=sorted(runtime.paper),
        config={
            **to_tree(recipe),
            "macs_b": counts.macs_b,
            "params_m": counts.params_m,
            "environment": facts,
            "variant": rows(runtime.cells),
        },
    )


def _conclude(tracker: SafeWandbLogger, result: Result, folder: Path, runtime: Runtime) -> Result:
    """Close W&B's record with the final figures; the result with the time that W&B took."""
    if runtime.wandb_artifacts:
        kept = [folder / WEIGHTS, folder / BEST]
        tracker.keep(f"{result.name}-{result.run_id}", kept, result.metrics)
    tracker.summarize(result, runtime.paper)
    tracker.close()
    return replace(result, tracker_seconds=tracker.seconds)


def _trainer(
    recipe: Recipe, hold: Hold, runtime: Runtime, callbacks: list[Callback], trackers: list[Any]
) -> tuple[pl.Trainer, Path | None]:
    """Lightning's trainer for a recipe, and the checkpoint to go on from, if there is one."""
    resume, step = latest(hold.folder) or (None, 0)
    if resume:
        log.info("goes on from step %d", step)
    loggers = [HistoryLogger(hold.folder, resume_step=step), *trackers]
    saver = Checkpoints(
        folder=hold.folder, lease=hold.lease, stop=hold.stop, every_s=runtime.checkpoint_s
    )
    if recipe.train.frozen_norms:
        callbacks = [*callbacks, FrozenNorms(recipe.train.frozen_norms)]
    if recipe.train.ema_decay:
        callbacks = [*callbacks, moving_average(recipe.train.ema_decay)]
    trainer = pl.Trainer(
        accelerator=runtime.accelerator,
        **trainer_options(runtime.processes, runtime.accelerator, runtime.device),
        max_epochs=recipe.train.epochs,
        precision=PRECISIONS[recipe.train.precision],  # type: ignore[arg-type]
        gradient_clip_val=recipe.optim.clip_norm or None,
        check_val_every_n_epoch=recipe.eval.every_epochs,
        callbacks=[*callbacks, saver],
        # The environment is named, since Lightning would else take SLURM's signals for its own.
        plugins=[LightningEnvironment(), CheckedIO()],
        logger=[] if runtime.processes.rank else loggers,
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
        enable_progress_bar=runtime.progress_bar,
        enable_model_summary=False,
        default_root_dir=hold.folder,
    )
    return trainer, resume


@contextmanager
def _log_to(path: Path | None) -> Iterator[None]:
    """The project's log lines, and Lightning's warnings, into the run's own file, or nowhere."""
    handler = logging.NullHandler() if path is None else logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("experiments")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    lightning = logging.getLogger("pytorch_lightning")
    level, lightning.level = lightning.level, logging.ERROR
    try:
        with warnings.catch_warnings():
            # Lightning advises more data workers; small sets are decoded once and need none.
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        ours.removeHandler(handler)
        lightning.setLevel(level)
        handler.close()
