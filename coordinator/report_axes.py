"""Ticks of the report's pictures: round values, and labels that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from shardsgd.coordinator.curves import Series
from shardsgd.formatting import number

ROUND = [1, 2, 5, 10]


def fix_ticks(axis: Axis, ticks: Series) -> None:
    """Gives an axis these ticks and no others."""
    axis.set_major_locator(FixedLocator(ticks.tolist()))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(tick))


def log_ticks(low: float, high: float) -> Series:
    """Four to seven round values between the two, where that can be had."""
    decades = np.log10(high / low)
    if decades < 0.7:
        ticks = np.array(MaxNLocator(5, steps=ROUND).tick_values(low, high))
    else:
        steps = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3.5 else (1,)
        powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        ticks = np.sort(np.outer(10.0 ** powers[:: max(1, round(decades / 6))], steps).ravel())
    return ticks[(ticks >= low) & (ticks <= high)]


def tick(value: float, _position: int) -> str:
    """The label of a value."""
    return number(value)


def linear_tick(low: float, high: float, *, percent: bool) -> Callable[[float, int], str]:
    """Labels with as many digits as tell ticks between the two values apart."""
    digits = max(4, 2 + math.ceil(math.log10(max(abs(low), abs(high)) / (high - low))))

    def label(value: float, _position: int) -> str:
        return f"{number(100 * value, digits)}%" if percent else number(value, digits)

    return label
