"""A run's own log file, `train.log`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Quiet(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """A line that does not fit onto the disk is lost; the run says why it failed anyway."""


@contextmanager
def log_to(path: Path | None) -> Iterator[None]:
    """The project's log lines, and Lightning's warnings, into the run's own file, or nowhere."""
    handler = logging.NullHandler() if path is None else _Quiet(path)
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
