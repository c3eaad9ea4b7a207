"""Whatever becomes of an input, it is read to a right result or refused in one clear line; nothing
hangs, no traceback is a user's share, and reading changes nothing.

A few hundred damaged files of each kind here; `-m fuzz` tries thousands of each, `FUZZ_CASES` so
many, in another order every time.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.inputs import Files, Kind, clear, kinds

KINDS = kinds()
FEW = 100
MANY = int(os.environ.get("FUZZ_CASES", 4000))
LONGEST_S = 10  # of the processor


class HangError(BaseException):
    """Not caught by what is tried."""


def hang(number: int, frame: FrameType | None) -> None:
    raise HangError(f"a case took more than {LONGEST_S} s")


def hammer(kind: Kind, folder: Path, cases: int, *, fixed: bool) -> None:
    """Read so many damaged inputs of a kind; always the same ones if `fixed`."""
    check = settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=fixed,
        suppress_health_check=list(HealthCheck),
    )(given(kind.damaged)(lambda files: read_one(kind, folder, files)))
    old = signal.signal(signal.SIGPROF, hang)
    try:
        (check if fixed else seed(int.from_bytes(os.urandom(4)))(check))()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def read_one(kind: Kind, folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    try:
        kind.read(folder)
    except Exception as error:
        clear(error, kind.name)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if kind.quiet:
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert there == set(files)
        assert all((folder / name).read_bytes() == content for name, content in files.items())


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_input_is_read_right_or_refused_in_a_line(name, tmp_path):
    hammer(KINDS[name], tmp_path / "case", FEW, fixed=True)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_inputs(name, tmp_path):
    hammer(KINDS[name], tmp_path / "case", MANY, fixed=False)
