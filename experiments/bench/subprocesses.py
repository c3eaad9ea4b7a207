"""This project's Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the checkout, or of the installed packages


def python(code: str, *arguments: str, threads: int) -> str:
    """Run `code` with `arguments`; what it printed. Raises RuntimeError with its last words."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise RuntimeError(f"python -c {code!r} {' '.join(arguments)}: {last[0]}")
    return done.stdout
