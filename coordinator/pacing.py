"""How fast a run is and how long it will take, for people to look at."""

from __future__ import annotations

from shardsgd.coordinator.records import Pace, StepRecord
from shardsgd.coordinator.stop import fraction_done
from shardsgd.spec import Stop

# Memory of the smoothed speed: about the last 20 steps.
_DECAY = 0.95


class Pacer:
    """Smooths the speed of the steps of one session."""

    def __init__(self, rules: Stop, steps_per_epoch: int) -> None:
        self._rules = rules
        self._steps_per_epoch = steps_per_epoch
        self._rows = self._seconds = 0.0
        self._start: tuple[float, float] | None = None

    def after(self, record: StepRecord, rows: int, seconds: float) -> Pace:
        """The pace after a step of `rows` rows, `seconds` into the run."""
        self._rows = _DECAY * self._rows + rows
        self._seconds = _DECAY * self._seconds + record.step_seconds
        fraction = fraction_done(
            self._rules, steps=record.step + 1, steps_per_epoch=self._steps_per_epoch, seconds=seconds
        )
        speed = self._rows / self._seconds if self._seconds else 0.0
        return Pace(speed, fraction, self._eta(fraction, seconds))

    def _eta(self, fraction: float | None, seconds: float) -> float | None:
        """From the share done since this session began: a resumed run may be on another machine than before."""
        if fraction is None:
            return None
        if self._start is None:
            self._start = (fraction, seconds)
        done, elapsed = fraction - self._start[0], seconds - self._start[1]
        return elapsed / done * (1 - fraction) if done > 0 else None


def checkpoint_interval(every: float, write: float, step: float) -> float:
    """Seconds from one checkpoint to the next, so that no kill costs more than `every`, also one just before the next is there.

    Args:
        every: `checkpoint.every_seconds`.
        write: what the last checkpoint took to be copied and written, in seconds.
        step: what the last step took: so much later than due a checkpoint may begin, and so much a kill costs besides.
    """
    return max(every / 2, every - 2 * (write + step))
