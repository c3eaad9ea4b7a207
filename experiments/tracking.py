"""Where metrics go beside the result: a history file in the run's folder, and Weights & Biases.

W&B is a sink. It is online when a key is configured, otherwise offline in the run's folder, to be
sent later with `wandb sync`. Whatever goes wrong with it is logged once and the run goes on.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from experiments.store import Result
from experiments.study import PaperValue

log = logging.getLogger(__name__)

WandbMode = Literal["auto", "online", "offline", "disabled"]
PROJECT = "spinenet"


class HistoryLogger(Logger):
    """One JSON object per line and step in `history.jsonl`; a resumed run drops what it is about to
    repeat.
    """

    def __init__(self, folder: Path, *, resume_step: int = 0) -> None:
        super().__init__()
        self.path = folder / "history.jsonl"
        kept = self.path.read_text().splitlines() if self.path.is_file() and resume_step else []
        kept = [line for line in kept if json.loads(line)["step"] < resume_step]
        self.path.write_text("".join(f"{line}\n" for line in kept))

    @property
    def name(self) -> str:
        return "history"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {k: float(v) for k, v in metrics.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The recipe is on disk already."""


class SafeWandbLogger(WandbLogger):
    """Lightning's W&B logger, which after its first failure says so and stays silent."""

    failed = False

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Run `action` against W&B; whatever it raises ends tracking, not training."""
        if self.failed:
            return None
        try:
            return action()
        except Exception as error:
            self.failed = True
            log.warning("W&B is off for the rest of this run: %s: %s", type(error).__name__, error)
            return None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(lambda: super(SafeWandbLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: Any) -> None:
        """The recipe goes in with the run's creation."""

    def finalize(self, status: str) -> None:
        self.attempt(lambda: super(SafeWandbLogger, self).finalize(status))

    def summarize(self, result: Result, paper: Mapping[str, Mapping[str, PaperValue]]) -> None:
        """Write the final figures, and beside them the paper's by study with the difference; then
        close the run.
        """
        summary = {**result.metrics, "macs_b": result.macs_b, "params_m": result.params_m}
        for study, values in paper.items():
            for metric, printed in values.items():
                summary[f"paper/{study}/{metric}"] = printed.value
                if metric in result.metrics:
                    summary[f"paper/{study}/{metric}_difference"] = (
                        result.metrics[metric] - printed.value
                    )
        self.attempt(lambda: self.experiment.summary.update(summary))
        self.attempt(lambda: self.experiment.finish(exit_code=0))


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
    """The logger of a run, started; None when W&B is disabled, missing or refuses."""
    mode = choose_mode(mode)
    if mode == "disabled":
        return None
    try:
        import wandb

        settings = wandb.Settings(console="off", silent=True, x_disable_stats=True, init_timeout=20)
        logger = SafeWandbLogger(
            project=PROJECT,
            save_dir=folder,
            id=run_id,
            name=name,
            group=group,
            tags=tags,
            config=config,
            offline=mode == "offline",
            resume="allow",
            settings=settings,
        )
        logger.experiment  # noqa: B018  starts the run, so that a refusal shows here
    except Exception as error:
        log.warning("W&B is off for this run: %s: %s", type(error).__name__, error)
        return None
    return logger


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
