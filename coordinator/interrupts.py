"""Ctrl-C and friends as a flag that the step loop polls, so that a step is never torn."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupt_flag(on_first: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Catches SIGINT, SIGTERM and SIGHUP for the length of a block.

    The first one raises the flag and calls `on_first`; a second one raises KeyboardInterrupt at once. In a thread other than
    the main one, signals cannot be caught and the flag stays down.

    Yields:
        The flag.
    """
    raised = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if raised.is_set():
            raise KeyboardInterrupt
        raised.set()
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield raised.is_set
        return
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield raised.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
