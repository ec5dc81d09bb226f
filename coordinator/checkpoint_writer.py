"""Checkpoints written beside the steps: the step loop waits for a copy in memory, and not for the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from shardsgd.coordinator.loop import TrainState


class CheckpointWriter:
    """Writes one state at a time, in a thread that lives as long as that takes.

    Attributes:
        seconds: what the last one took to be copied and written; 0 before the first is.
    """

    def __init__(self, write: Callable[[TrainState], object]) -> None:
        self._write = write
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.seconds = 0.0

    def is_idle(self) -> bool:
        """Whether the next state may be written.

        Raises:
            BaseException: what the last write raised, once, in the thread that asks.
        """
        if self._thread is not None and self._thread.is_alive():
            return False
        self.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def start(self, state: TrainState) -> None:
        """Copies a state, whose memory the steps to come write over, and begins to write the copy. Only while it is idle."""
        assert self._thread is None, "one at a time"
        begun = time.monotonic()
        slots = tuple(slot.copy() for slot in state.optimizer_state)
        copy = replace(state, theta=state.theta.copy(), optimizer_state=slots)
        thread = threading.Thread(target=self._run, args=(copy, begun), name="checkpoint")
        thread.start()
        self._thread = thread

    def wait(self) -> None:
        """Returns once nothing is being written; an error is kept for `is_idle`."""
        if self._thread is not None:
            self._thread.join()
            # A thread that has ended has let go of its arguments, and with them of the copy.
            self._thread = None

    def _run(self, copy: TrainState, begun: float) -> None:
        try:
            self._write(copy)
            self.seconds = time.monotonic() - begun
        except BaseException as error:  # noqa: BLE001  (raised again in the thread that asks)
            self._error = error
