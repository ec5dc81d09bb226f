"""From a noise scale and measured step times to advice, or to none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shardsgd.coordinator.advice.law import NoiseScale, efficiency, progress_ratio, steps_factor

Verdict = Literal["change", "keep", "cannot tell"]


@dataclass(frozen=True)
class StepTime:
    """How long a step takes with a batch size on so many workers.

    Attributes:
        batch: B, in rows.
        workers: that computed.
        seconds: median.
        seconds_low: lower quartile.
        seconds_high: upper quartile.
        steps: measured.
    """

    batch: int
    workers: int
    seconds: float
    seconds_low: float
    seconds_high: float
    steps: int

    @classmethod
    def of(cls, batch: int, workers: int, seconds: Sequence[float]) -> StepTime:
        """From the times of at least one step."""
        quartiles = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
        return cls(batch, workers, quartiles[1], quartiles[0], quartiles[2], len(seconds))


@dataclass(frozen=True)
class Choice:
    """A batch size and a number of workers, with what speaks for them. All but times are None where no noise scale is told.

    Attributes:
        time: of a step, as measured.
        rows_per_second: throughput: B over the median step time.
        efficiency: 1/(1 + B_s/B), of a noiseless step's progress.
        steps_factor: 1 + B_s/B, of the steps that noiseless ones would need.
        goodput: progress per second over that of the present choice: throughput in steps times efficiency.
        goodput_low: the least that the noise scale's interval and the step times' quartiles allow.
        goodput_high: the most.
        learning_rate: lr(0) that goes with B, if the present one is right for the present B.
        learning_rate_low: its least within the noise scale's interval.
        learning_rate_high: its most.
    """

    time: StepTime
    rows_per_second: float
    efficiency: float | None = None
    steps_factor: float | None = None
    goodput: float | None = None
    goodput_low: float | None = None
    goodput_high: float | None = None
    learning_rate: float | None = None
    learning_rate_low: float | None = None
    learning_rate_high: float | None = None


@dataclass(frozen=True)
class Advice:
    """What batch size and how many workers a job should have, with the numbers that it came from.

    Attributes:
        noise: B_s.
        noise_from: what it was measured on, in words.
        present: the job's own choice.
        choices: all that were measured, the present one too, by workers and batch size.
        verdict: "change" to `favoured`; "keep" the present choice; "cannot tell".
        reason: why, in words.
        favoured: the most goodput at the estimate of B_s; None where there is none.
        batch_low: the batch size with the most goodput at the lower end of the interval of B_s.
        batch_high: likewise at the upper end.
    """

    noise: NoiseScale
    noise_from: str
    present: Choice
    choices: tuple[Choice, ...]
    verdict: Verdict
    reason: str
    favoured: Choice | None = None
    batch_low: int | None = None
    batch_high: int | None = None


def decide(
    noise: NoiseScale, noise_from: str, times: Sequence[StepTime], present: StepTime, learning_rate: float
) -> Advice:
    """Weighs the choices that were measured; others are not considered.

    "change" is for a choice that is faster than the present one wherever in its interval B_s lies, by more than step times
    scatter; "keep" where no choice is so anywhere in the interval; everything else cannot be told.

    Args:
        noise: B_s.
        noise_from: what it was measured on, in words.
        times: all that were measured.
        present: the one of them that the job has.
        learning_rate: lr(0) of the job, taken to be right for its batch size.
    """
    ordered = sorted(times, key=lambda time: (time.workers, time.batch))
    if noise.rows is None or noise.low is None:
        bare = {time: Choice(time, time.batch / time.seconds) for time in ordered}
        why = "the steps that were measured do not tell |G|² from 0, so there is no noise scale"
        return Advice(noise, noise_from, bare[present], tuple(bare.values()), "cannot tell", why)
    scale, ends = noise.rows, (noise.low, noise.high)
    choices = {time: _choice(time, present, scale, ends, learning_rate) for time in ordered}
    lowest, best, highest = (_best(ordered, present, at) for at in (ends[0], scale, ends[1]))
    verdict, reason = _verdict(list(choices.values()), choices[best], present, ends)
    return Advice(
        noise=noise,
        noise_from=noise_from,
        present=choices[present],
        choices=tuple(choices.values()),
        verdict=verdict,
        reason=reason,
        favoured=choices[best],
        batch_low=lowest.batch,
        batch_high=highest.batch,
    )


def goodput(time: StepTime, present: StepTime, scale: float) -> float:
    """Progress per second over that of `present`, at the noise scale `scale`."""
    return present.seconds / time.seconds * progress_ratio(time.batch, present.batch, scale)


def _best(times: Sequence[StepTime], present: StepTime, scale: float) -> StepTime:
    return max(times, key=lambda time: goodput(time, present, scale))


def _choice(time: StepTime, present: StepTime, scale: float, ends: tuple[float, float], learning_rate: float) -> Choice:
    ratio = progress_ratio(time.batch, present.batch, scale)
    least, most = sorted(progress_ratio(time.batch, present.batch, end) for end in ends)
    slowest, fastest = (1.0, 1.0) if time == present else _speeds(time, present)
    return Choice(
        time=time,
        rows_per_second=time.batch / time.seconds,
        efficiency=efficiency(time.batch, scale),
        steps_factor=steps_factor(time.batch, scale),
        goodput=goodput(time, present, scale),
        goodput_low=slowest * least,
        goodput_high=fastest * most,
        learning_rate=learning_rate * ratio,
        learning_rate_low=learning_rate * least,
        learning_rate_high=learning_rate * most,
    )


def _speeds(time: StepTime, present: StepTime) -> tuple[float, float]:
    """Steps per second over those of `present`: the least and the most that the quartiles allow."""
    return present.seconds_low / time.seconds_high, present.seconds_high / time.seconds_low


def _verdict(
    choices: Sequence[Choice], best: Choice, present: StepTime, ends: tuple[float, float]
) -> tuple[Verdict, str]:
    if best.time != present and best.goodput_low is not None and best.goodput_low > 1:
        return "change", "it makes more progress per second wherever in its interval the noise scale lies"
    others = [choice.time for choice in choices if choice.time != present]
    # In between no choice gains more than at one of the ends: `progress_ratio` is monotonic in the noise scale.
    if any(
        _speeds(time, present)[0] * progress_ratio(time.batch, present.batch, end) > 1
        for time in others
        for end in ends
    ):
        unbounded = ", which has no upper bound" if math.isinf(ends[1]) else ""
        return "cannot tell", f"it depends on where in its interval{unbounded} the noise scale lies"
    if best.time == present:
        return "keep", "no other choice that was measured makes more progress per second"
    return "keep", "others are as fast as far as the scatter of the step times tells"
