"""Data sets that are drawn here: where they are kept, what names them, and how they appear."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.staging import staged


def cache_folder() -> Path:
    """Where drawn data live: $SPINENET_CACHE, else ~/.cache/spinenet."""
    return Path(os.environ.get("SPINENET_CACHE") or Path.home() / ".cache" / "spinenet")


def drawing_fingerprint(config: Any, drawing_version: int) -> str:
    """SHA-256 of what decides a drawing, the config's fields and the version; known without
    drawing.
    """
    identity = {"drawing_version": drawing_version} | asdict(config)
    for key in ("min_size", "max_size"):  # 10 and 10.0 draw the same
        identity[key] = float(identity[key])
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def drawn_once(folder: Path, draw: Callable[[Path], None]) -> Path:
    """``folder``, which ``draw`` fills when it is missing.

    The folder appears by one rename, so it is complete whenever it exists. Two processes that start
    together both draw, and the later one throws its copy away.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staged(folder.parent, ".drawing-") as unfinished:
        try:
            draw(unfinished)
            unfinished.chmod(0o755)  # mkdtemp's folder is private to its maker
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder
