"""What happens beside the training step: averaged weights and frozen norms, the guard against
non-finite losses, the best weights kept, what is known of a failure, reports to whoever watches.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.faults import Moment
from experiments.module import NonFiniteLossError, TaskModule

Event = dict[str, Any]
Send = Callable[[Event], None]

log = logging.getLogger(__name__)

BEST = "best.safetensors"
REPORT_EVERY_S = 0.5
GPU_CHECK_EVERY = (
    50  # steps between looks at the loss, each of which makes the device and the host meet
)


def moving_average(decay: float) -> WeightAveraging:
    """Exponential moving average of weights and norm statistics; validation and the final weights
    use it.

    The decay warms up as (1 + n) / (10 + n), so that a short run does not average in its initial
    weights.
    """
    return _MovingAverage(decay)


class _MovingAverage(WeightAveraging):
    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, avg_fn=self._average)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep the average where the network is going to be; so far it is on the processor."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def _average(self, averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        n = self._latest_update_step  # is `count`, for which the device would be waited
        return averaged.lerp(current, 1 - min(self.decay, (1 + n) / (10 + n)))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in place also when a resumed run finds that all its epochs are done."""
        self._copy_average_to_current(pl_module)


class FrozenNorms(Callback):
    """Over the last `share` of the steps, norms keep their statistics and normalise by them.

    In a small batch the statistics of a coarse map rest on few values, and a network comes to lean
    on those of the very batch; evaluated by running averages it then is another network. Trained
    to the end with frozen averages, it is the same one.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        total = int(trainer.estimated_stepping_batches)
        if trainer.global_step >= round((1 - self.share) * total):
            for norm in pl_module.modules():
                if isinstance(norm, _BatchNorm):
                    norm.eval()


class FiniteLoss(Callback):
    """Stops the run at a loss that is not a number, before it can reach a checkpoint."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        every = GPU_CHECK_EVERY if pl_module.device.type == "cuda" else 1
        if trainer.global_step % every == 0 or trainer.is_last_batch:
            self._check(trainer, trainer.strategy.reduce(outputs["loss"], reduce_op="mean"))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The last step's update has no loss after it, and on a GPU the loss is seldom looked at,
        so look at the weights themselves.
        """
        if not all(torch.isfinite(p).all() for p in pl_module.parameters()):
            self._check(trainer, torch.tensor(torch.nan))

    def _check(self, trainer: pl.Trainer, loss: Tensor) -> None:
        if math.isfinite(loss.item()):
            return
        terms = {
            k: f"{float(v):.4g}"
            for k, v in trainer.callback_metrics.items()
            if k.startswith("loss/")
        }
        listed = ", ".join(f"{k} {v}" for k, v in terms.items())
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise NonFiniteLossError(
            f"the loss is not finite at step {trainer.global_step} (epoch {trainer.current_epoch}, "
            f"learning rate {rate:.3g}): {listed}; the last good checkpoint is kept; "
            "lower optim.lr, or set optim.clip_norm"
        )


class BestWeights(Callback):
    """Keeps `best.safetensors`, the weights of the best validation so far, also over a resumption;
    none where the run went on without it for a while, and what was best is not known.

    `write` puts the weights as they are into a file. It comes before a moving average in the list
    of callbacks, which takes the average away again when the epoch of validation ends. `keep`
    raises LeaseLostError where the run is another's by now.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[Path], None],
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.candidate = folder / BEST, folder / "candidate.safetensors"
        self.write, self.keep = write, keep
        self.best: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.best is None:
            self.best = -math.inf if trainer.global_step == 0 else math.inf
            if trainer.global_step:
                log.warning("%s is not kept, since the run began without it", BEST)
                self.path.unlink(missing_ok=True)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.keep()
        self.write(self.candidate)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        assert pl_module.scores is not None
        value = pl_module.scores.metrics[pl_module.metric]
        self.keep()
        if self.best is not None and value > self.best:
            self.best = value
            self.candidate.replace(self.path)
        else:
            self.candidate.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class Witness(Callback):
    """Knows where the run was when it failed: `moment`."""

    def __init__(self) -> None:
        self.moment = Moment()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.moment = Moment("scoring", trainer.global_step, trainer.current_epoch)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        stage = "validation" if trainer.validating else "training"
        self.moment = Moment(stage, trainer.global_step, trainer.current_epoch)


class Report(Callback):
    """Tells the watcher how far training is, and the log one line per epoch."""

    def __init__(self, send: Send) -> None:
        self.send, self.last, self.started = send, 0.0, 0.0
        self.train_seconds, self.images = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()  # of an epoch that is gone on with, which does not start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = time.perf_counter()
        self.images += len(batch["image"]) * trainer.world_size
        if trainer.is_last_batch:
            self.train_seconds += now - self.started
        if now - self.last > REPORT_EVERY_S:
            self.last = now
            total = int(trainer.estimated_stepping_batches)
            self.send({"kind": "step", "step": trainer.global_step, "total": total})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = float(trainer.callback_metrics["loss/total"])
        log.info("epoch %d: loss %.4f", trainer.current_epoch, loss)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        if pl_module.scores is not None:
            value = pl_module.scores.metrics[pl_module.metric]
            log.info("epoch %d: %s %.2f", trainer.current_epoch, pl_module.metric, value)
            self.send({"kind": "validation", "metric": pl_module.metric, "value": value})
