"""Leases: which worker a run belongs to, among processes of one machine or of many that share a
folder.

A run's folder has `.lease/`, whose files are numbered; the highest is the run's lease, and its
content says who holds it. To take a run is to link the next number, which a file system does for
one worker only, on NFS too. A number is used once, so that nobody takes over from a worker that it
has never seen. A lease given back says `released`; one that was taken over is deleted.

A holder touches its file every `beat_s`. On the holder's own machine its process decides: a dead
one is succeeded at once, a living one never. From elsewhere a lease is dead if nothing of it has
changed for `stale_s` of the watcher's own clock; clocks of two machines are never compared. A
worker that was suspended that long finds its lease gone when it next asks, and stops.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from experiments.errors import UserError

FOLDER = ".lease"
RELEASED = "released"
POLL_S = 0.2
BLIND_S = 30.0  # between looks, after which what was not seen says nothing of a holder

Sight = Literal["free", "held", "silent"]


class HeldError(UserError):
    """Another worker has the run."""


class LeaseLostError(RuntimeError):
    """This worker no longer has its run, because others had to take it for dead."""


@dataclass(frozen=True)
class Pace:
    """How often a holder shows that it lives, and after how long without a sign it is dead: many
    times as long, and longer than NFS keeps what it knows of a file (a minute).
    """

    beat_s: float = 10.0
    stale_s: float = 90.0


@dataclass(frozen=True)
class Owner:
    """A process: its machine (as far as process ids mean the same), id and start; `token` is made
    for each lease.
    """

    machine: str
    pid: int
    started: str
    token: str


class Lease:
    """A run that this process holds, from `begin` on."""

    def __init__(self, path: Path, content: str, pace: Pace) -> None:
        self.path, self.content, self.pace = path, content, pace
        self.folder = path.parents[1]
        self._file = os.open(path, os.O_RDWR)
        self._seen = awake_s()
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True, name="lease")

    def begin(self) -> None:
        """Show from now on that the holder lives."""
        self._beats.start()

    def confirm(self) -> None:
        """Raise LeaseLostError unless the run is still this process's; asked before it writes.
        Raises OSError where that cannot be found out.
        """
        if _told(self.path) != self.content or _highest(self.folder) != self.path:
            raise LeaseLostError(
                f"{self.folder}: another worker took this run over, since this one "
                f"gave no sign for {self.pace.stale_s:.0f} s; it goes on there"
            )
        self._seen = awake_s()

    def keep(self) -> None:
        """`confirm` where there is a reason to: this process was away for longer than a beat. Costs
        nothing otherwise, so that every step can ask.
        """
        if awake_s() - self._seen > 2 * self.pace.beat_s:
            self.confirm()

    def end(self) -> None:
        """Give the run back; what a successor has made stays."""
        self._ended.set()
        self._beats.join()
        with suppress(OSError):  # a file that another worker deleted
            os.pwrite(self._file, RELEASED.encode(), 0)
            os.ftruncate(self._file, len(RELEASED))
        os.close(self._file)

    def _beat(self) -> None:
        """Touch the open file, which is this lease's whatever has become of its path."""
        while not self._ended.wait(self.pace.beat_s):
            with suppress(OSError, LeaseLostError):  # the main thread asks by itself, and tells
                now = time.time_ns()
                os.utime(self._file, ns=(now, now))
                self.confirm()


@contextmanager
def lock(
    folder: Path, pace: Pace | None = None, doing: str = "training this run"
) -> Iterator[Lease]:
    """Hold the run in `folder`, or what else is done there. Raises HeldError if another process
    does; to find that out of a worker elsewhere takes a beat, and up to `stale_s` to find it dead.
    """
    lease = _take(folder, pace or Pace(), doing)
    lease.begin()
    try:
        yield lease
    finally:
        lease.end()


def is_locked(folder: Path) -> bool:
    """Whether some process holds the run, as far as a look can tell: one elsewhere that died is
    found out only by who wants its run.
    """
    held = _highest(folder)
    return held is not None and not _is_free(held)


def clear(folder: Path) -> None:
    """Remove the leases of a run that is complete, which nobody will train again."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class Watch:
    """What a process has seen of leases, by which it finds out that a holder elsewhere is dead."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self._seen: dict[Path, tuple[Any, float, float]] = {}  # signs, since when, the last look

    def look(self, folder: Path) -> Sight:
        """Whether the run can be taken (`free`), is held by a process that lives (`held`), or by
        one elsewhere that has shown no sign yet since the first look (`silent`), and becomes free
        if it never does.
        """
        path = _highest(folder)
        return "free" if path is None else self.look_at(path)

    def look_at(self, path: Path) -> Sight:
        """The same for one lease of the run."""
        if _is_free(path):
            return "free"
        signs, now = _signs(path), awake_s()
        first, since, looked = self._seen.get(path, (signs, now, now))
        is_known = signs == first and signs is not None and not _is_here(path)
        if not is_known or now - looked > BLIND_S:
            since = now  # also where nobody looked, or the file system answered nobody
        self._seen[path] = (signs, since, now)
        if not is_known:
            return "held"
        return "free" if now - since >= self.pace.stale_s else "silent"


def _take(folder: Path, pace: Pace, doing: str) -> Lease:
    """The lease after the present one, once that is free or its holder has shown no life."""
    present, watch = _highest(folder), Watch(pace)
    while present is not None and (seen := watch.look_at(present)) != "free":
        if seen == "held":
            raise HeldError(f"{folder}: another process is {doing}; wait for it, or stop it")
        time.sleep(POLL_S)
    number = 1 if present is None else int(present.name) + 1
    path = folder / FOLDER / str(number)
    owner = Owner(machine(), os.getpid(), process_start(os.getpid()) or "", uuid.uuid4().hex)
    content = json.dumps(asdict(owner))
    # The number may have come and gone since; then there is a higher one.
    if not _create(path, content) or _highest(folder) != path:
        raise HeldError(
            f"{folder}: another process took this run just now; wait for it, or stop it"
        )
    for older in _numbered(folder):
        if older < number:
            path.with_name(str(older)).unlink(missing_ok=True)
    return Lease(path, content, pace)


def _create(path: Path, content: str) -> bool:
    """Make the file with its content at once; False if there is one already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}")
    draft.write_text(content)
    try:
        os.link(draft, path)
    except FileExistsError:
        # Where the answer to a link was lost, the question is repeated and meets its own file.
        return draft.stat().st_nlink == 2
    except OSError:
        return _create_without_links(path, content)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _create_without_links(path: Path, content: str) -> bool:
    """The same for file systems without hard links; for an instant the file is empty, and then
    nobody's that could be found dead.
    """
    try:
        with path.open("x") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _numbered(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder / FOLDER) if name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _highest(folder: Path) -> Path | None:
    """The run's present lease, if it was ever held."""
    numbers = _numbered(folder)
    return folder / FOLDER / str(max(numbers)) if numbers else None


def _is_free(path: Path) -> bool:
    """Whether the lease was given back, or its holder was a process here that is no more."""
    text = _text(path)
    owner = _owner(text)
    return text == RELEASED or (_is_here(path) and owner is not None and not is_alive(owner))


def _is_here(path: Path) -> bool:
    """Whether the holder is a process of this machine."""
    owner = _owner(_text(path))
    return owner is not None and owner.machine == machine()


def _owner(text: str) -> Owner | None:
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _text(path: Path) -> str:
    """What the lease says; nothing where it is gone, about to be written, or cannot be read."""
    with suppress(OSError):
        return _told(path)
    return ""


def _told(path: Path) -> str:
    """What the lease says; nothing where it is gone, or about to be written."""
    try:
        return path.read_text()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return ""


def _signs(path: Path) -> Any:
    """What changes with every beat; None where the file is gone. It is opened, since NFS asks the
    server of a file anew only then.
    """
    try:
        with path.open() as file:
            found = os.fstat(file.fileno())
            return found.st_ino, found.st_mtime_ns, file.read()
    except OSError:
        return None


def is_alive(owner: Owner) -> bool:
    """Whether the process runs on this machine, and is not a later one of the same number."""
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = process_start(owner.pid)
    return started is None or started == owner.started


def process_start(pid: int) -> str | None:
    """When a process began, in whatever way the system counts; empty for one that has ended but
    was not yet waited for, None where it cannot be known.
    """
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return "" if fields[0] in "ZX" else fields[19]  # proc(5): fields 3 and 22
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, started = subprocess.run(asked, capture_output=True, text=True).stdout.partition(" ")
    return "" if state.startswith("Z") else started.strip() or None


@cache
def machine() -> str:
    """What tells this machine from others, as far as process ids go: its name, when it was started,
    and the container.
    """
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def awake_s() -> float:
    """Seconds of a clock of this machine that goes on while it sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
