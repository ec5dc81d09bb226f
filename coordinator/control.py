"""What may be asked of a run while it goes, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Control:
    """Stops a run, or changes how many workers it has.

    Attributes:
        workers: how many workers were asked for last; None: as many as the spec says.
    """

    def __init__(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Of a run that has not begun.

        Args:
            interrupted: polled by the run; once it is true the run stops, as it does after `stop`.
        """
        self.workers: int | None = None
        self._stopped = threading.Event()
        self._interrupted = interrupted

    def stop(self) -> None:
        """Has the run stop with a checkpoint."""
        self._stopped.set()

    def interrupted(self) -> bool:
        """Whether the run is to stop."""
        return self._stopped.is_set() or self._interrupted()

    def scale(self, workers: int) -> None:
        """Has the run go on with so many workers: they join and leave between two steps, and change no bit of the result.

        Fewer than `workers.min`, or more than `workers.max` or than there are shards, are not to be had: the run goes on with
        as many as may be.

        Raises:
            ValueError: fewer than one.
        """
        if workers < 1:
            raise ValueError(f"workers = {workers}: must be at least 1")
        self.workers = workers
