"""When to try again, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shardsgd.errors import ServiceUnavailableError

_FIRST_S, _LONGEST_S = 0.1, 5.0
_MOST_DOUBLINGS = 10


@dataclass
class Patience:
    """Waits between tries of one task: exponentially longer ones, with full jitter.

    That is, each is drawn evenly between 0 and a bound that doubles, so that many clients of a service that comes back do not
    all come at once (M. Brooker, "Exponential Backoff And Jitter", 2015).

    Attributes:
        limit_s: gives up once nothing has gone well for so long.
        clock: seconds that only ever grow.
        sleep: waits for so many seconds.
        drawn: a number from 0 to 1.
    """

    limit_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    drawn: Callable[[], float] = random.random
    _failures: int = field(default=0, init=False)
    _give_up_at: float = field(default=0.0, init=False)

    @property
    def is_new_trouble(self) -> bool:
        """Whether nothing has failed since something last went well."""
        return self._failures == 0

    def encouraged(self) -> None:
        """Something went well: all that failed before is forgotten."""
        self._failures = 0

    def after(self, error: ServiceUnavailableError) -> None:
        """Waits after a failure.

        Raises:
            ServiceUnavailableError: the error itself, where it is time to give up.
        """
        now = self.clock()
        if self._failures == 0:
            self._give_up_at = now + self.limit_s
        bound = min(_LONGEST_S, _FIRST_S * 2 ** min(self._failures, _MOST_DOUBLINGS))
        self._failures += 1
        wait = max(self.drawn() * bound, error.retry_after_s or 0.0)
        if now + wait > self._give_up_at:
            raise error
        self.sleep(wait)
