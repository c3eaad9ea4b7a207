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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback
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
    Witness,
    device_name,
    moving_average,
)
from experiments.checkpoints import CheckedIO, Checkpoints, latest
from experiments.code_version import OtherCode, take_up
from experiments.errors import UserError
from experiments.faults import explained
from experiments.leases import Lease, LeaseLostError, clear, lock
from experiments.networks import build, compile_network
from experiments.progress import ProgressFile
from experiments.provenance import environment
from experiments.recipe import Recipe, to_tree
from experiments.resuming import refuse_foreign
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
from experiments.study import PaperValue
from experiments.tasks import DataModule, datamodule, make_module
from experiments.tracked_media import media, start_drawing
from experiments.tracking import HistoryLogger, SafeWandbLogger, WandbMode, rows, wandb_logger
from experiments.weights import WEIGHTS, labels_of, write_weights
from spinenet.complexity import Complexity, complexity
from spinenet.recompute import recompute_blocks

log = logging.getLogger(__name__)

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


def default_accelerator() -> str:
    """The GPU if there is one. Apple's is left out: it lacks the float64 that suppression needs."""
    return "gpu" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Runtime:
    """How a run is carried out, none of which changes its result.

    `recompute` saves memory by running blocks twice. `weights` is the file of a recipe's
    `train.start`, found by its content. `wandb_artifacts` gives W&B the last and the best weights.
    `paper` has the printed values of the variant by study, for W&B's summary. `cells` are the
    entries of grids that ask for the run. A checkpoint is written every `checkpoint_s` within an
    epoch, and at its end. `other_code` says what becomes of an unfinished run that other code
    began; a result of both is marked.
    """

    accelerator: str = field(default_factory=default_accelerator)
    device: int = 0
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
    other_code: OtherCode = "refuse"


@dataclass(frozen=True)
class Hold:
    """A run as long as this process has it: its folder, the lease, and whether it is to stop."""

    folder: Path
    lease: Lease
    stop: Stop


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
    witness = Witness()

    def tell(event: Event) -> None:
        progress.take(event)
        try:
            send(event)
        except BrokenPipeError:
            hold.stop.ask()  # whoever started this run is no more, and would start it again

    try:
        result = _train(recipe, run_id, hold, runtime, tell, witness)
        progress.remove()
        return result
    except LeaseLostError as lost:
        log.error("%s", lost)
        raise
    except Exception as error:
        trace = traceback.format_exc()
        told = explained(error, recipe, folder, runtime, witness.moment)
        hold.lease.confirm()
        log.error("failed: %s: %s", type(told).__name__, told)
        with suppress(OSError):  # nor can a failure be written where the disk is full
            write_failure(folder, Failure(type(told).__name__, str(told), trace))
        if told is error:
            raise
        raise told from error


def _train(
    recipe: Recipe, run_id: str, hold: Hold, runtime: Runtime, send: Send, witness: Witness
) -> Result:
    folder = hold.folder
    start = time.perf_counter()
    torch.set_num_threads(recipe.train.threads)
    facts, marks = _begin(recipe, run_id, folder, runtime)
    data = datamodule(recipe, runtime.num_workers)
    data.prepare_data()
    data.setup("fit")
    marks += _left_out(data)
    model = _network(recipe, runtime, data)
    counts = complexity(model, recipe.data.transform.side)
    if runtime.recompute:
        recompute_blocks(model.backbone)  # type: ignore[arg-type]
    if recipe.train.compile:
        compile_network(model)
    module = make_module(model, recipe, data)

    def write(path: Path) -> None:
        write_weights(path, model, recipe, labels_of(data))

    report = Report(send)
    tracker = _tracker(recipe, run_id, folder, runtime, counts, facts)
    drawing = tracker.attempt(lambda: start_drawing(recipe, folder / "wandb")) if tracker else None
    callbacks: list[Callback] = [report, FiniteLoss(), witness]
    if tracker and runtime.wandb_artifacts:
        callbacks.append(BestWeights(folder, write))
    callbacks.append(
        Checkpoints(folder=folder, lease=hold.lease, stop=hold.stop, every_s=runtime.checkpoint_s)
    )
    resume, step = latest(folder) or (None, 0)
    if resume:
        refuse_foreign(resume, module)
        log.info("goes on from step %d", step)
    loggers = [HistoryLogger(folder, resume_step=step), *([tracker] if tracker else [])]
    steps = _steps_per_epoch(recipe, data)
    trainer = _trainer(recipe, folder, runtime, callbacks, loggers, steps)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    has_validated = trainer.current_epoch % recipe.eval.every_epochs == 0
    if has_validated and module.scores is None:
        trainer.loggers = []  # an earlier process did, and it is in the history
    if not has_validated or module.scores is None:
        trainer.validate(module, datamodule=data, verbose=False)
    hold.lease.confirm()

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
        images_seen=steps * recipe.train.batch_size * recipe.train.epochs,
        data_fingerprint=data.fingerprint,
        recipe=to_tree(recipe),
        environment=facts,
        deviates=[*recipe.deviates, *marks],
        cells=list(runtime.cells),
        left_out={split: len(said) for split, said in data.left_out.items() if said},
    )
    if tracker:
        result = _conclude(tracker, result, folder, runtime)
    hold.lease.confirm()
    write_result(folder, result)
    value = result.metrics[module.metric]
    log.info("done: %s %.2f in %.0f s", module.metric, value, result.seconds)
    return result


def _begin(
    recipe: Recipe, run_id: str, folder: Path, runtime: Runtime
) -> tuple[dict[str, Any], list[str]]:
    """Write down what is run, where, and by which code; where, and what deviates in that."""
    marks = ["code"] if take_up(folder, runtime.other_code) else []
    facts = environment() | {"accelerator": runtime.accelerator}
    write_atomically(folder / "recipe.yaml", yaml.safe_dump(to_tree(recipe), sort_keys=False))
    write_atomically(folder / "environment.json", json.dumps(facts, indent=1))
    log.info(
        "run %s (%s), commit %s, on %s", run_id, recipe.name, facts["commit"][:10], device_name()
    )
    return facts, marks


def _left_out(data: DataModule) -> list[str]:
    """Log each damaged picture that is left out; what deviates by it."""
    for split, complaints in data.left_out.items():
        for said in complaints:
            log.warning("left out of %s: %s", split, said)
    count = sum(map(len, data.left_out.values()))
    return [f"{count} damaged pictures left out"] if count else []


def _steps_per_epoch(recipe: Recipe, data: DataModule) -> int:
    """Steps of the optimiser, each of a whole batch."""
    steps = data.batches_per_epoch // recipe.train.accumulate
    if not steps and data.batches_per_epoch:
        raise UserError(
            f"train.batch_size: {recipe.train.batch_size} is more than {data.described}; lower it"
        )
    return steps


def _network(recipe: Recipe, runtime: Runtime, data: DataModule) -> nn.Module:
    """The recipe's network, with the weights that it starts from, if it does."""
    model = build(recipe, data.num_classes)
    if recipe.train.start:
        for line in start_network(model, recipe, runtime.weights, data.class_names):
            log.info(line)
    return model


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
    recipe: Recipe,
    folder: Path,
    runtime: Runtime,
    callbacks: list[Callback],
    loggers: list[Any],
    steps_per_epoch: int,
) -> pl.Trainer:
    """Lightning's trainer for a recipe."""
    accumulate = recipe.train.accumulate
    if recipe.train.frozen_norms:
        callbacks = [*callbacks, FrozenNorms(recipe.train.frozen_norms)]
    if recipe.train.ema_decay:
        callbacks = [*callbacks, moving_average(recipe.train.ema_decay)]
    return pl.Trainer(
        accelerator=runtime.accelerator,
        devices=[runtime.device] if runtime.accelerator == "gpu" else 1,
        max_epochs=recipe.train.epochs,
        precision=PRECISIONS[recipe.train.precision],  # type: ignore[arg-type]
        gradient_clip_val=recipe.optim.clip_norm or None,
        accumulate_grad_batches=accumulate,
        # Parts that fill no whole batch would be a step of their own.
        limit_train_batches=steps_per_epoch * accumulate if accumulate > 1 else None,
        check_val_every_n_epoch=recipe.eval.every_epochs,
        callbacks=callbacks,
        plugins=[CheckedIO()],
        logger=loggers,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
        enable_progress_bar=runtime.progress_bar,
        enable_model_summary=False,
        default_root_dir=folder,
    )


class _Quiet(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """A line that does not fit onto the disk is lost; the run says why it failed anyway."""


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """The project's log lines, and Lightning's warnings, into the run's own file."""
    handler = _Quiet(path)
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
