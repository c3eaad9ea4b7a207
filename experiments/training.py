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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning.callbacks import Callback

from experiments.allocator import keep_freed_memory
from experiments.assembly import (
    Hold,
    fit,
    make_network,
    make_trainer,
    read_data,
    ready_module,
)
from experiments.callbacks import (
    BEST,
    BestWeights,
    Event,
    FiniteLoss,
    Report,
    Send,
    Witness,
)
from experiments.code_version import take_up
from experiments.distributed import (
    deviations,
    together,
)
from experiments.distributed import facts as facts_of_sharing
from experiments.faults import explained
from experiments.leases import LeaseLostError, clear, lock
from experiments.module import steps_per_epoch
from experiments.progress import ProgressFile
from experiments.provenance import environment, trained_on
from experiments.recipe import Recipe, to_tree
from experiments.run_log import log_to
from experiments.runtime import Runtime
from experiments.stopping import stoppable
from experiments.store import (
    Failure,
    Result,
    read_result,
    refuse_twin,
    write_atomically,
    write_failure,
    write_result,
)
from experiments.tasks import DataModule
from experiments.tracked_media import media, start_drawing
from experiments.tracking import SafeWandbLogger, rows, wandb_logger
from experiments.weights import WEIGHTS, labels_of, write_weights
from spinenet.complexity import Complexity, complexity

log = logging.getLogger(__name__)


def train(
    recipe: Recipe, run_id: str, folder: Path, runtime: Runtime, send: Send = lambda event: None
) -> Result:
    """Train `recipe` in `folder` and write its result. A failure is recorded in the folder and
    raised again.

    Raises HeldError if another worker has the run, LeaseLostError if one took it over, and Stopped
    when it was asked to stop; none of them is a failure.
    """
    with lock(folder) as lease, stoppable() as stop, log_to(folder / "train.log"):
        refuse_twin(folder, run_id)
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
        with together(recipe, folder, runtime) as shared:
            result = _train(recipe, run_id, hold, shared, tell, witness)
        progress.remove()
        return result
    except LeaseLostError as lost:
        log.error("%s", lost)
        raise
    except Exception as error:
        trace = traceback.format_exc()
        told = explained(error, recipe, folder, runtime, witness.moment)
        hold.confirm()
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
    data = read_data(recipe, runtime)
    marks += _left_out(data)
    model = make_network(recipe, runtime, data)
    counts = complexity(model, recipe.data.transform.side)
    module = ready_module(model, recipe, runtime, data)

    def write(path: Path) -> None:
        write_weights(path, model, recipe, labels_of(data))

    report = Report(send)
    tracker = _tracker(recipe, run_id, folder, runtime, counts, facts)
    drawing = tracker.attempt(lambda: start_drawing(recipe, folder / "wandb")) if tracker else None
    callbacks: list[Callback] = [report, FiniteLoss(), witness]
    if runtime.wandb_artifacts:
        callbacks.append(BestWeights(folder, write, hold.keep))
    else:
        (folder / BEST).unlink(missing_ok=True)  # of an attempt with it: not the best any more
    trackers = [tracker] if tracker else []
    trainer, resume = make_trainer(recipe, hold, runtime, data, callbacks, trackers)
    fit(trainer, module, data, resume)
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
        images_seen=steps_per_epoch(recipe, data) * recipe.train.batch_size * recipe.train.epochs,
        data_fingerprint=data.fingerprint,
        recipe=to_tree(recipe),
        environment=facts,
        deviates=[*recipe.deviates, *marks, *deviations(recipe, runtime)],
        cells=list(runtime.cells),
        left_out={split: len(said) for split, said in data.left_out.items() if said},
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
    with together(recipe, folder, runtime) as shared, stoppable() as stop, log_to(None):
        torch.set_num_threads(recipe.train.threads)
        data = read_data(recipe, shared)
        module = ready_module(make_network(recipe, shared, data), recipe, shared, data)
        hold = Hold(folder, None, stop)
        trainer, resume = make_trainer(recipe, hold, shared, data, [FiniteLoss()], [])
        fit(trainer, module, data, resume)


def _begin(
    recipe: Recipe, run_id: str, folder: Path, runtime: Runtime
) -> tuple[dict[str, Any], list[str]]:
    """Write down what is run, where, and by which code; where, and what deviates in that."""
    marks = ["code"] if take_up(folder, runtime.other_code) else []
    facts = environment() | {"accelerator": runtime.accelerator} | facts_of_sharing(runtime)
    write_atomically(folder / "recipe.yaml", yaml.safe_dump(to_tree(recipe), sort_keys=False))
    write_atomically(folder / "environment.json", json.dumps(facts, indent=1))
    commit, where = facts["commit"][:10], trained_on(facts)
    log.info("run %s (%s), commit %s, on %s", run_id, recipe.name, commit, where)
    return facts, marks


def _left_out(data: DataModule) -> list[str]:
    """Log each damaged picture that is left out; what deviates by it."""
    for split, complaints in data.left_out.items():
        for said in complaints:
            log.warning("left out of %s: %s", split, said)
    count = sum(map(len, data.left_out.values()))
    return [f"{count} damaged pictures left out"] if count else []


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
        kept = [path for name in (WEIGHTS, BEST) if (path := folder / name).is_file()]
        tracker.keep(f"{result.name}-{result.run_id}", kept, result.metrics)
    tracker.summarize(result, runtime.paper)
    tracker.close()
    return replace(result, tracker_seconds=tracker.seconds)
