"""The service's log: a line of JSON for each thing that happened."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO


class ServiceLog:
    """Writes JSON lines to a stream. For one thread at a time."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        """Writes to a stream.

        Args:
            stream: stderr, in a service.
            clock: Unix seconds.
        """
        self._stream = stream
        self._clock = clock

    def line(self, event: str, **fields: object) -> None:
        """Writes one line: `event`, `time` (UTC, ISO 8601) and the fields. Never a token: that is for whoever calls it.

        A stream that has gone, such as a terminal that was closed, does not stop the service.
        """
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        # ASCII: nothing that a caller sent can act on the terminal of whoever reads it.
        text = json.dumps({"event": event, "time": at, **fields}, default=str)
        with suppress(OSError, ValueError):
            self._stream.write(text + "\n")
            self._stream.flush()
