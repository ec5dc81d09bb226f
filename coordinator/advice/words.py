"""Advice as sentences."""

from __future__ import annotations

import math

from shardsgd.coordinator.advice.decide import Advice, Choice
from shardsgd.coordinator.advice.law import NoiseScale, efficiency, noise_scale, progress_ratio
from shardsgd.coordinator.records import GradientNoise
from shardsgd.formatting import count, number, plural, rows_within

_UNTOLD = "cannot be told: the gradient does not stand out from its noise, or a step has fewer than two leaves"


def advice_line(noise: GradientNoise, batch_size: int) -> str:
    """What a run alone says of its batch size, for the end of its summary.

    Args:
        noise: as the run measured it.
        batch_size: `batch.size` of its spec.

    Example:
        >>> noise = GradientNoise(9.0, 0.01, 900.0, (), noise_scale_low=600.0, noise_scale_high=1400.0)
        >>> advice_line(noise, 256).partition(";")[0]
        "a step makes 22% (15% to 30%) of a noiseless one's progress"
    """
    scale = noise_scale(noise)
    if scale.rows is None or scale.low is None:
        return f"whether another would pay {_UNTOLD}"
    share = efficiency(batch_size, scale.rows)
    least, most = efficiency(batch_size, scale.high), efficiency(batch_size, scale.low)
    fewer = 1 / progress_ratio(2 * batch_size, batch_size, scale.rows)
    return (
        f"a step makes {share:.0%} ({least:.0%} to {most:.0%}) of a noiseless one's progress; with twice the rows "
        f"{fewer:.2f} times the steps would do. Whether that pays: shardsgd advise"
    )


def noise_words(noise: NoiseScale) -> str:
    """A noise scale with its interval.

    Example:
        >>> noise_words(NoiseScale(314.2, 120.0, math.inf))
        '314 rows (at least 120)'
    """
    if noise.low is None:
        return _UNTOLD
    return rows_within(noise.rows, noise.low, None if math.isinf(noise.high) else noise.high)


def sentences(advice: Advice) -> tuple[str, ...]:
    """The advice for people, a sentence or two each."""
    measured = f"Noise scale tr Σ/|G|², from {advice.noise_from}: {noise_words(advice.noise)}."
    present, best = advice.present.time, advice.favoured
    if best is None:
        return (measured, f"Cannot tell which batch size is best: {advice.reason}.")
    now = f"batch.size = {count(present.batch)} on {plural(present.workers, 'worker')}"
    between = _between(advice)
    if advice.verdict == "keep":
        return (measured, f"Keep {now}: {advice.reason}.", *between)
    if advice.verdict == "cannot tell":
        return (measured, f"Cannot tell whether anything is better than {now}: {advice.reason}.", *between)
    return (measured, _change(best, now), *_rate(advice.present, best), *between, *_edge(advice, best))


def _change(best: Choice, now: str) -> str:
    time = best.time
    return (
        f"Take batch.size = {count(time.batch)} on {plural(time.workers, 'worker')}, with optimizer.learning_rate = "
        f"{_span(best.learning_rate, best.learning_rate_low, best.learning_rate_high)}: "
        f"{_span(best.goodput, best.goodput_low, best.goodput_high)} times the progress per second of {now}."
    )


def _rate(present: Choice, best: Choice) -> tuple[str, ...]:
    if best.learning_rate is None or present.learning_rate is None or best.learning_rate <= present.learning_rate:
        return ()
    return (f"Should it diverge, {number(present.learning_rate, 3)} was too near the largest stable rate already.",)


def _between(advice: Advice) -> tuple[str, ...]:
    low, high = advice.batch_low, advice.batch_high
    if low is None or high is None or low == high:
        return ()
    return (f"Over the noise scale's interval the best measured batch size goes from {count(low)} to {count(high)}.",)


def _edge(advice: Advice, best: Choice) -> tuple[str, ...]:
    sizes = [choice.time.batch for choice in advice.choices]
    if best.time.batch not in (min(sizes), max(sizes)):
        return ()
    which = "largest" if best.time.batch == max(sizes) else "smallest"
    return (f"That is the {which} batch size measured; --batches measures others.",)


def _span(value: float | None, low: float | None, high: float | None) -> str:
    return f"{number(value, 3)} ({number(low, 3)} to {number(high, 3)})"
