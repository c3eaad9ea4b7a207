"""Where metrics go beside the result: a history file in the run's folder, and Weights & Biases.

W&B is a sink, and the run never waits for its server: a run is always recorded in its own folder,
as W&B records it offline. Online, which is when a key is configured, another process sends the
record while it grows; otherwise `spinenet wandb sync` sends it later. Whatever goes wrong is logged
once and the run goes on.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from experiments.store import Result, write_atomically
from experiments.study import PaperValue
from experiments.uploading import start_upload

log = logging.getLogger(__name__)

WandbMode = Literal["auto", "online", "offline", "disabled"]
PROJECT = "spinenet"
# The run has its own log, and its config what is worth knowing of code and machine.
QUIET: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "disable_git": True,
    "host": "",
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
HISTORY = "history.jsonl"
LOG_EVERY = 10  # steps, between rows of the history
STEP = "step"  # the axis of all curves: optimiser steps, which a resumed run continues


class HistoryLogger(Logger):
    """One JSON object per line and step in `history.jsonl`; a resumed run drops what it is about to
    repeat. `keep` raises LeaseLostError where the run is another's by now.
    """

    def __init__(
        self, folder: Path, *, resume_step: int = 0, keep: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self.path, self.keep = folder / HISTORY, keep
        kept = [line for line, step in _history(self.path) if 0 <= step < resume_step]
        write_atomically(self.path, "".join(f"{line}\n" for line in kept))

    @property
    def name(self) -> str:
        return "history"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {k: float(v) for k, v in metrics.items()}
        self.keep()
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The recipe is on disk already."""


def _history(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of a history and their steps; the last may be cut where a process was killed."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for line in lines:
        with suppress(ValueError, LookupError, TypeError, RecursionError):
            text = line.decode()
            step = json.loads(text)["step"]
            yield text, step if isinstance(step, int) else -1


class SafeWandbLogger(WandbLogger):
    """Lightning's W&B logger over a run that is recorded on disk; after its first failure it says
    so and stays silent. `seconds` is the time that the run has spent in it.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        super().__init__(project=PROJECT)
        self.failed, self.seconds = False, 0.0
        self.uploader: subprocess.Popen[bytes] | None = None
        self._experiment = self.attempt(start)

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Run `action` against W&B; whatever it raises ends tracking, not training."""
        if self.failed:
            return None
        start = time.perf_counter()
        try:
            return action()
        except Exception as error:
            self.failed = True
            log.warning("W&B is off for the rest of this run: %s: %s", type(error).__name__, error)
            return None
        finally:
            self.seconds += time.perf_counter() - start

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.attempt(lambda: self.experiment.log({**metrics, STEP: step}))

    def log_hyperparams(self, params: Any) -> None:
        """The recipe goes in with the run's creation."""

    def finalize(self, status: str) -> None:
        """A run that failed is closed as such; one that is trained has its summary to come."""
        if status != "success":
            self.close(exit_code=1)

    def summarize(self, result: Result, paper: Mapping[str, Mapping[str, PaperValue]]) -> None:
        """Write the final figures, and beside them the paper's by study with the difference."""
        summary = {**result.metrics, "macs_b": result.macs_b, "params_m": result.params_m}
        for study, values in paper.items():
            for metric, printed in values.items():
                summary[f"paper/{study}/{metric}"] = printed.value
                if metric in result.metrics:
                    summary[f"paper/{study}/{metric}_difference"] = (
                        result.metrics[metric] - printed.value
                    )
        self.attempt(lambda: self.experiment.summary.update(summary))

    def log_media(self, make: Callable[[], dict[str, Any]], step: int) -> None:
        """Record pictures, tables and curves, which are only made where they can be recorded."""
        self.attempt(lambda: self.experiment.log({**make(), STEP: step}))

    def keep(self, name: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        """Record weights as one artifact of the run."""

        def record() -> None:
            import wandb

            artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
            for path in files:
                artifact.add_file(str(path), policy="immutable")  # not copied: it stays where it is
            self.experiment.log_artifact(artifact)

        self.attempt(record)

    def close(self, *, exit_code: int = 0) -> None:
        """End the record. What is not sent yet goes on being sent."""
        self.attempt(lambda: self.experiment.finish(exit_code=exit_code))
        if self.uploader is not None and self.uploader.stdin is not None:
            self.uploader.stdin.close()


def wandb_logger(
    mode: WandbMode,
    *,
    folder: Path,
    run_id: str,
    name: str,
    group: str,
    tags: list[str],
    config: dict[str, Any],
) -> SafeWandbLogger | None:
    """The logger of a run, started; None where W&B is disabled or did not start, and in all
    processes of a run but the first.
    """
    mode = choose_mode(mode)
    if mode == "disabled" or getattr(rank_zero_only, "rank", 0) != 0:
        return None

    def start() -> Any:
        import wandb

        # Else pictures and artifacts wait to be sent in a folder of the user's, outside the run's.
        os.environ["WANDB_DATA_DIR"] = str((folder / "wandb" / "data").resolve())
        run = wandb.init(
            project=PROJECT,
            dir=folder,
            id=run_id,
            name=name,
            group=group,
            tags=tags,
            config=config,
            mode="offline",
            resume="allow",
            reinit="finish_previous",
            settings=wandb.Settings(**QUIET),
        )
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)
        return run

    logger = SafeWandbLogger(start)
    if logger.failed:
        return None
    if mode == "online":
        logger.uploader = logger.attempt(lambda: start_upload(Path(logger.experiment.dir).parent))
    return logger


def rows(cells: Sequence[str]) -> dict[str, str]:
    """STUDY/VARIANT@PROFILE of each cell as study → variant, by which W&B groups seeds."""
    split = (cell.partition("@")[0].partition("/") for cell in cells)
    return {study: variant for study, _, variant in split}


def choose_mode(mode: WandbMode) -> WandbMode:
    """`auto` becomes WANDB_MODE if set, online where a key is configured, offline otherwise."""
    if mode != "auto":
        return mode
    asked = os.environ.get("WANDB_MODE")
    if asked in ("online", "offline", "disabled"):
        return asked  # type: ignore[return-value]
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].strip("/")
    try:
        return netrc().authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False
