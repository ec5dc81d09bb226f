"""Ctrl-C and friends as a flag that a run polls, so that neither a step nor a clean-up is ever torn."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptFlag:
    """Whether somebody asked the run to stop.

    Until it is polled for the first time, a signal raises KeyboardInterrupt: nothing was started, nothing has to be kept. From
    then on the run looks by itself, often, and a signal only raises the flag; a KeyboardInterrupt could come in the middle of
    Ray's start or end, and leave processes behind, or be swallowed by a callback of jax's.
    """

    def __init__(self) -> None:
        self._polled = False
        self._raised = False

    def __call__(self) -> bool:
        """Polls the flag."""
        self._polled = True
        return self._raised

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        del number, frame
        if not self._polled:
            raise KeyboardInterrupt
        self._raised = True
        # os.write: a signal may come in the middle of a print, and Python's streams do not allow a second one inside it.
        # It fails where the signal says that the terminal has gone; the run ends in good order all the same.
        with suppress(OSError):
            os.write(2, b"\ninterrupted: stopping\n")


@contextmanager
def interrupt_flag(*, leaving: bool) -> Iterator[InterruptFlag]:
    """Catches SIGINT, SIGTERM and SIGHUP for the length of a block, except those that are ignored (`nohup`, background jobs).

    In a thread other than the main one, signals cannot be caught and the flag stays down.

    Args:
        leaving: the process ends after the block: the signals are ignored from then on, so that its exit code is the run's.
    """
    flag = InterruptFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in caught:
        signal.signal(number, flag.handle)
    try:
        yield flag
    finally:
        for number, handler in caught.items():
            signal.signal(number, signal.SIG_IGN if leaving else handler)
