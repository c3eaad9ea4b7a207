"""This project's Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the checkout, or of the installed packages


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which Python finds this project from any folder."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | more


def python(code: str, *arguments: str, threads: int) -> str:
    """Run `code` with `arguments`; what it printed. Raises RuntimeError with its last words."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(OMP_NUM_THREADS=str(threads)),
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise RuntimeError(f"python -c {code!r} {' '.join(arguments)}: {last[0]}")
    return done.stdout
