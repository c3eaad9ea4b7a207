"""How a run is stopped from outside, so that no work is lost.

SIGTERM, which schedulers and `kill` send, SIGUSR1 or SIGUSR2, by which SLURM warns of a time limit,
SIGHUP of a closed terminal and SIGINT of Ctrl-C ask for it. While a network is trained, the run
writes a checkpoint at the next step that it can be resumed from, and leaves; at other times, and
`GRACE_S` after it was asked, it leaves at once, with the checkpoint that it has. A stopped run is
no failure: the same command goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT = 75  # of a process that was stopped: EX_TEMPFAIL of sysexits.h, "try again later"
INTERRUPTED_EXIT = 130  # of one that was stopped at the terminal, as shells have it
GRACE_S = 25.0
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)


class Stopped(BaseException):
    """What runs here was asked to stop, and has. No error, so that nothing takes it for one."""

    def __init__(self, exit_code: int = EXIT) -> None:
        super().__init__("stopped")
        self.exit_code = exit_code


class Stop:
    """Whether a run was asked to stop. `can_wait` says that it looks by itself, at every step."""

    def __init__(self) -> None:
        self.is_asked, self.can_wait = False, False
        self.exit_code = EXIT
        self._process = os.getpid()

    def ask(self) -> None:
        """Ask for it."""
        self.is_asked = True

    def leave(self, *signal_and_frame: object) -> None:
        """Stop at once; also a signal's handler."""
        raise Stopped(self.exit_code)

    def listen(self) -> None:
        """Take the signals, also from whoever took them since; not what is ignored, as by nohup,
        and not SIGUSR2 from submitit, which queues a job up again by it.
        """
        heard = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        for number in heard:
            before = signal.getsignal(number)
            is_submitits = number == signal.SIGUSR2 and before != signal.SIG_DFL
            if before is not signal.SIG_IGN and not is_submitits:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a process that loads data, which the run ends itself
        is_repeated, self.is_asked = self.is_asked, True
        if number == signal.SIGINT:
            self.exit_code = INTERRUPTED_EXIT
        if not self.can_wait or (is_repeated and number == signal.SIGINT):
            self.leave()
        if not is_repeated:
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Hear the signals inside; they raise Stopped there. Outside the main thread nobody does."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, stop.leave)
    stop.listen()
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
