"""How many streaming calls a caller has open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from shardsgd.coordinator.service.problems import Reason, ServiceError


class OpenStreams:
    """Counts streaming calls by caller, and refuses one too many. For one thread."""

    def __init__(self, most: int | None) -> None:
        """Starts with none.

        Args:
            most: streaming calls of one caller at a time; None: no limit.
        """
        self._most = most
        self._open = Counter[str]()

    @contextmanager
    def one_more(self, caller: str) -> Iterator[None]:
        """Counts a call for the length of a block.

        Raises:
            ServiceError: TOO_MANY_WATCHERS.
        """
        if self._most is not None and self._open[caller] >= self._most:
            raise ServiceError(
                Reason.TOO_MANY_WATCHERS,
                f"{self._most} streaming calls are open, as many as one caller may have: end some of them",
                metadata={"subject": "watchers", "limit": str(self._most)},
                retry_after_s=1.0,
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
