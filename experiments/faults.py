"""What the machine does to a run, as the error that its user can act on.

Memory that runs out, a disk that is full or must not be written, a process that loads data and
dies: libraries say these in words of their own, deep in a traceback. `explained` knows them by
their marks and says what happened, what is kept and what to do. Whatever it does not know stays as
it is.
"""

from __future__ import annotations

import errno
import gc
import re
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules import DataError
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.memory import Room
    from experiments.recipe import Recipe
    from experiments.runtime import Runtime

KEPT = "what was finished is kept, and the same command goes on from it"
FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
SAYS_FULL = ("No space left on device", "StorageFull", "Disk quota exceeded")
SAYS_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "bad_alloc",
    "out of memory",
    "ALLOC_FAILED",
)
SHARED_MEMORY = ("shared memory", "(shm)", "Bus error")
WORKER_DIED = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: (\w+)|exited)")
IN_WORKER = "Caught DataError in DataLoader worker"


class OutOfMemoryError(UserError):
    """Memory of the device or of the machine did not suffice; the message says what fits."""


class DiskFullError(UserError):
    """Nothing more can be written where the message says."""


class NotWritableError(UserError):
    """The place in the message must not be written."""


class WorkerDiedError(UserError):
    """A process that loads data is gone."""


@dataclass(frozen=True)
class Moment:
    """Where a run was when it failed: `stage` is starting, training, validation or scoring."""

    stage: str = "starting"
    step: int = 0
    epoch: int = 0

    def __str__(self) -> str:
        if self.stage == "starting":
            return "before the first step"
        return f"in {self.stage} at step {self.step} (epoch {self.epoch})"


def explained(
    error: Exception, recipe: Recipe, folder: Path, runtime: Runtime, moment: Moment
) -> Exception:
    """The user's error behind one that a run in `folder` ended with; the same where it is none.

    After running out of memory it looks for what fits, which takes up to a few minutes.
    """
    if isinstance(error, UserError):
        return error
    if found := of_loading(error) or of_storage(error, folder):
        return found
    if not is_out_of_memory(error):
        return error
    from experiments.memory import room

    if moment.stage != "training":
        return out_of_memory(recipe, moment, None)
    _let_go(error)
    return out_of_memory(recipe, moment, room(recipe, runtime))


def of_storage(error: BaseException, folder: Path | None = None) -> UserError | None:
    """What the disk has to do with it; `folder` is named where the error names no file."""
    number = getattr(error, "errno", None)
    place = getattr(error, "filename", None) or folder or "disk"
    if any(_says_full(behind) for behind in _behind(error)):
        return DiskFullError(
            f"{place}: no space is left on this disk; {KEPT}; make room, or choose a folder on "
            "another disk with --runs"
        )
    if isinstance(error, OSError) and number in READ_ONLY:
        return NotWritableError(
            f"{place}: {error.strerror}; allow it, or choose another folder with --runs"
        )
    return None


def _says_full(error: BaseException) -> bool:
    number, text = getattr(error, "errno", None), str(error)
    return number in FULL or any(mark in text for mark in SAYS_FULL)


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of: torch's writer has words of its own for a full disk."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def refuse_unwritable(folder: Path) -> None:
    """Raise where nothing can be written below `folder`, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        plain = OSError(error.errno, error.strerror)  # of the folder, not of what was tried in it
        raise of_storage(plain, folder) or UserError(f"{folder}: {error.strerror}") from None


def of_loading(error: BaseException) -> Exception | None:
    """What a process that loads data died of."""
    text = str(error)
    if text.startswith(IN_WORKER):  # with that process's traceback, of no use to anybody
        return DataError(text.rpartition("DataError: ")[2].strip())
    died = WORKER_DIED.search(text)
    if not died and not (isinstance(error, RuntimeError) and "(shm)" in text):
        return None
    if any(mark in text for mark in SHARED_MEMORY):
        return WorkerDiedError(
            f"the processes that load data ran out of shared memory (/dev/shm); {KEPT}; give the "
            "machine more of it (of a container: --shm-size), or load with --workers 0"
        )
    signal = f" by the signal {died[1]}" if died and died[1] else ""
    return WorkerDiedError(
        f"a process that loads data was ended{signal}, by the system if memory ran out; {KEPT}; "
        "load with fewer --workers, or with --workers 0 to see what is wrong"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether some allocator had nothing left to give."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in SAYS_MEMORY)


def out_of_memory(recipe: Recipe, moment: Moment, found: Room | None) -> OutOfMemoryError:
    """The message: what was asked, what fits, and the ways out that keep most of the recipe."""
    side = recipe.data.transform.side
    if found is not None:
        asked = f"{found.asked} pictures of {side} pixels at once"
        return OutOfMemoryError(
            f"out of memory {moment}: {asked} do not fit; {_ways(recipe, found)}"
        )
    if moment.stage == "validation":
        way = f"lower eval.batch_size, now {recipe.eval.batch_size}, which changes no result"
    else:
        way = "free memory, run fewer at once (--jobs 1), or take fewer --workers"
    return OutOfMemoryError(f"out of memory {moment}; {KEPT}; {way}")


def _ways(recipe: Recipe, found: Room) -> str:
    batch = recipe.train.batch_size
    fits = found.fits * (batch // recipe.train.accumulate // found.asked)  # in all processes
    ways = []
    if found.all_with_recompute:
        ways.append(f"--recompute makes room for {found.asked}, with the same result")
    if fits:
        ways.append(
            f"--set train.accumulate={batch // fits} keeps the batch of {batch}, in parts of "
            f"{fits}, for other results"
        )
        ways.append(f"--set train.batch_size={fits} lowers the learning rate with it")
    else:
        ways.append("lower data.transform.side or the network's width")
    how_many = f"{found.fits} do" if fits else "not even one does"
    return f"{how_many}; {KEPT}; {'; or '.join(ways)}"


def _let_go(error: BaseException) -> None:
    """Give back what the failed step holds, so that there is room to look for what fits."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
