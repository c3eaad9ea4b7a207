"""Is an unfinished run of this code, or was it begun by other code?

A run that went on under code that trains differently would be half of each, and its result that of
neither. So a run notes the sources that decide what training does, file by file, and where they
differ from what is here it is not gone on with unless its user says so. Comments, blank lines and
all that only shows or stores results may change meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from experiments.errors import UserError
from experiments.store import CHECKPOINTS, write_atomically

log = logging.getLogger(__name__)

FILE = "code.json"
ROOT = Path(__file__).parents[1]
# What trains; of the networks' and the data's packages, all.
DECIDING = (
    "assembly",
    "callbacks",
    "capturing",
    "distributed",
    "module",
    "networks",
    "optimizer",
    "recipe",
    "tasks",
    "training",
)
LIBRARIES = ("torch", "pytorch-lightning")
NAMED = 4

OtherCode = Literal["refuse", "continue", "restart"]


def take_up(folder: Path, other_code: OtherCode) -> bool:
    """Take up the run in `folder` with this code, and note the latter; whether the run's training
    is, or becomes, of more than one code.

    Raises UserError where it was begun by other code and `other_code` refuses that.
    """
    here, before = {"code": SOURCES, "libraries": libraries()}, _read(folder)
    changed = None if before is None else differences(before, here)
    if not any((folder / CHECKPOINTS).glob("*.ckpt")):
        mixed = False
    elif before is not None and not changed:
        mixed = bool(before.get("mixed"))
    elif other_code == "refuse":
        raise UserError(_refusal(folder, changed or []))
    else:
        mixed = other_code == "continue"
        log.info("begun by other code: %s", other_code)
        if not mixed:
            shutil.rmtree(folder / CHECKPOINTS)
    write_atomically(folder / FILE, json.dumps(here | {"mixed": mixed}, indent=1))
    return mixed


def differences(before: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Files and libraries that are not as they were."""
    return [
        name
        for part in ("libraries", "code")
        for name in sorted(before[part].keys() | here[part].keys())
        if before[part].get(name) != here[part].get(name)
    ]


def code_digest() -> str:
    """One hash of all sources that decide what training does."""
    return hashlib.sha256(json.dumps(SOURCES, sort_keys=True).encode()).hexdigest()[:16]


def _sources() -> dict[str, str]:
    """A hash of each source file that decides what training does, without comments and blank
    lines.
    """
    deciding = [ROOT / "experiments" / f"{name}.py" for name in DECIDING]
    packages = [p for name in ("spinenet", "datamodules") for p in (ROOT / name).rglob("*.py")]
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(_stripped(path)).hexdigest()[:16]
        for path in sorted([*deciding, *packages])
    }


def libraries() -> dict[str, str]:
    """Versions of the libraries whose changes show in a training."""
    return {name: version(name) for name in LIBRARIES}


def _stripped(path: Path) -> bytes:
    lines = (line.rstrip() for line in path.read_bytes().splitlines())
    return b"\n".join(line for line in lines if line and not line.lstrip().startswith(b"#"))


def _read(folder: Path) -> dict[str, Any] | None:
    """What was noted; None where nothing was, or where it is damaged."""
    try:
        found = json.loads((folder / FILE).read_bytes())
        parts = (found["code"], found["libraries"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if all(isinstance(part, dict) for part in parts) else None


def _refusal(folder: Path, changed: list[str]) -> str:
    what = "it is not noted which"
    if changed:
        more = f" and {len(changed) - NAMED} more" if changed[NAMED:] else ""
        what = f"since then {', '.join(changed[:NAMED])}{more} changed"
    return (
        f"{folder}: this unfinished run was begun by other code ({what}); finish it with that "
        "code, begin it again with --other-code restart, or go on with --other-code continue, "
        "which marks its result"
    )


SOURCES = _sources()  # as this process has imported them, whatever is edited while it runs
