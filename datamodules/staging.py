"""Folders to work in beside what they become, of which a killed process leaves none for good."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SETTLED_S = 60.0  # by then whoever made a folder has its lock


@contextmanager
def staged(folder: Path, prefix: str) -> Iterator[Path]:
    """A new folder inside ``folder``, whose name begins with ``prefix``; removed at the end. Those
    that earlier processes left are removed first: a living one has a lock on its own. Where the
    file system has no such locks they stay.
    """
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > SETTLED_S:
                with _opened(left) as handle:
                    _lock(handle)
                    shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    try:
        with _opened(made) as handle:
            with suppress(OSError):
                _lock(handle)
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    """Until it is closed. Raises OSError where another process has the lock, or nobody can."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
