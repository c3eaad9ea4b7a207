"""Checkpoints: the whole state of a training, from which it goes on as if nothing had been.

Lightning puts together model, optimiser, schedule, scaler, callbacks (the moving average, the best
score) and the place in the data; here the random streams are added, and it is decided when that is
written. It is at every epoch's end, within an epoch `every_s` after the last, and when the run is
asked to stop. Within an epoch a step whose losses go into the history is passed over, since
Lightning logs them after a checkpoint could be made, and would not again.

    checkpoints/00000120-5f2b0c9ad81e7764.ckpt     step, and SHA-256 of the file's content

A file appears under its name when all of it is on disk, and the name says what is in it; so one
that was damaged or cut is found out, and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from experiments.errors import UserError
from experiments.leases import Lease
from experiments.module import of_all
from experiments.stopping import Stop
from experiments.store import CHECKPOINTS, sync
from experiments.tracking import HISTORY, LOG_EVERY

log = logging.getLogger(__name__)

KEPT = 2
DIGITS = 16  # of the digest, in a file's name
NAME = re.compile(rf"(?P<step>\d{{8,}})-(?P<digest>[0-9a-f]{{{DIGITS}}})\.ckpt")


class Checkpoints(Checkpoint):
    """Writes a run's checkpoints into its folder as long as the run is this process's, and ends the
    training by Stopped when `stop` asks for it. Of several processes of a run, each has one, and
    the first the lease; `resumed` is the name of the checkpoint that it goes on from.
    """

    def __init__(
        self,
        *,
        folder: Path,
        lease: Lease | None,
        stop: Stop,
        every_s: float,
        resumed: str = "none",
    ) -> None:
        self.folder, self.lease, self.stop, self.every_s = folder, lease, stop, every_s
        self.resumed = resumed
        self._written = time.monotonic()
        self._streams: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw on where the checkpoint left off. Lightning takes the signals before; they are taken
        back. Raises UserError where the processes of the run found different checkpoints.
        """
        if len(found := sorted(set(of_all(self.resumed)))) > 1:
            raise UserError(
                f"{self.folder}: the processes of this run would go on from different checkpoints "
                f"({', '.join(found)}), since another worker had it when they began; the same "
                "command goes on from the last"
            )
        if trainer.global_rank < len(self._streams):
            mine = self._streams[trainer.global_rank]
            torch.set_rng_state(mine["cpu"])
            if "cuda" in mine and pl_module.device.type == "cuda":
                torch.cuda.set_rng_state(mine["cuda"], pl_module.device)
        self._streams = []
        self.stop.listen()
        self.stop.can_wait = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.lease is not None:
            self.lease.keep()
        is_logged = trainer.global_step % LOG_EVERY == 0
        is_update = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_last_batch or is_logged or not is_update:
            return
        # Several processes would wait for each other at every step: they ask now and then.
        if trainer.world_size > 1 and trainer.global_step % LOG_EVERY != 1:
            return
        is_due = time.monotonic() - self._written >= self.every_s
        if _any(trainer, is_due or self.stop.is_asked):
            self._save(trainer)
            if _any(trainer, self.stop.is_asked):
                self._leave(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        if _any(trainer, self.stop.is_asked):
            self._leave(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.can_wait = False

    def state_dict(self) -> dict[str, Any]:
        """The random streams of all processes, by rank: Lightning asks each of them, and writes
        what the first one answers.
        """
        mine = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            mine["cuda"] = torch.cuda.get_rng_state()
        return {"streams": of_all(mine)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._streams = state_dict["streams"]

    def _save(self, trainer: pl.Trainer) -> None:
        if self.lease is not None:
            self.lease.confirm()
            sync(self.folder / HISTORY)  # no row of an earlier step may be younger than this
        trainer.save_checkpoint(self.folder / CHECKPOINTS / f"{trainer.global_step:08d}")
        self._written = time.monotonic()

    def _leave(self, trainer: pl.Trainer) -> None:
        log.info("stopped at step %d, with a checkpoint", trainer.global_step)
        self.stop.leave()


class CheckedIO(TorchCheckpointIO):
    """How Lightning writes a checkpoint: whole, on disk, named by its content; the last two are
    kept. Given `folder/00000120` it writes `folder/00000120-DIGEST.ckpt`.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        folder, step = Path(path).parent, Path(path).name
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=folder, prefix=f".{step}-")
        try:
            with os.fdopen(handle, "wb") as file:
                writer = _Digesting(file)
                torch.save(checkpoint, writer)  # type: ignore[arg-type]  # it only writes
                file.flush()
                os.fsync(file.fileno())
            os.chmod(draft, 0o644)  # who may go on with the run may not be who began it
            os.replace(draft, folder / f"{step}-{writer.digest}.ckpt")
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        _prune(folder)


class _Digesting:
    """A file to write to, and the digest of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._found = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self._found.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return self._found.hexdigest()[:DIGITS]


def latest(folder: Path, warn: Callable[..., None] = log.warning) -> tuple[Path, int] | None:
    """The newest checkpoint of a run's folder that is as it was written, and its step. What is not
    is removed, with a warning.
    """
    for path in reversed(_listed(folder / CHECKPOINTS)):
        found = NAME.fullmatch(path.name)
        assert found is not None
        if _digest(path) == found["digest"]:
            return path, int(found["step"])
        warn("%s is damaged, so the checkpoint before it is taken", path.name)
        path.unlink(missing_ok=True)  # another process of the run may be as quick
    return None


def _listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = ((NAME.fullmatch(path.name), path) for path in folder.iterdir())
    listed = [(int(name["step"]), path.stat().st_mtime_ns, path) for name, path in found if name]
    return [path for *_, path in sorted(listed)]


def _prune(folder: Path) -> None:
    """Keep the last checkpoints, and no draft of a process that was killed."""
    for path in _listed(folder)[:-KEPT]:
        path.unlink(missing_ok=True)
    for draft in folder.glob(".*"):
        draft.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _any(trainer: pl.Trainer, decision: bool) -> bool:
    """Whether any of the run's processes decided so; all of them must write, or none."""
    if trainer.world_size == 1:
        return decision
    return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))
