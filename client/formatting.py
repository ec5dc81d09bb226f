"""How numbers are written for people: the same in the terminal and in the report."""

from __future__ import annotations

import math

MISSING = "n/a"


def number(value: float | None, digits: int = 4) -> str:
    """A number with `digits` significant digits, and thousands separated.

    Example:
        >>> number(0.123456), number(12345.6), number(0.0000123), number(None)
        ('0.1235', '12,350', '1.23e-5', 'n/a')
    """
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(float(value))
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded != 0 and not 1e-4 <= abs(rounded) < 1e7:
        mantissa, _, exponent = f"{rounded:.{digits - 1}e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def count(value: int) -> str:
    """A whole number, exactly.

    Example:
        >>> count(1234567)
        '1,234,567'
    """
    return f"{value:,}"


def plural(value: float, noun: str) -> str:
    """A number of things; exact if it is whole.

    Example:
        >>> plural(1, "step"), plural(20_001, "step"), plural(2.51, "epoch")
        ('1 step', '20,001 steps', '2.51 epochs')
    """
    text = count(value) if isinstance(value, int) else number(value)
    return f"{text} {noun}{'' if text == '1' else 's'}"


def percent(share: float | None) -> str:
    """A share of 1 as a percentage.

    Example:
        >>> percent(0.97361)
        '97.36%'
    """
    return MISSING if share is None else f"{100 * share:.2f}%"


def duration(seconds: float | None) -> str:
    """A time span in the one or two largest units that matter.

    Example:
        >>> duration(0.0421), duration(12.34), duration(83), duration(7500), duration(100_000)
        ('42.1 ms', '12.3 s', '1 m 23 s', '2 h 05 m', '1 d 04 h')
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    # Each bound is where rounding would carry into the next unit: 59.97 s is "1 m 00 s", not "60.0 s".
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{number(1000 * seconds, 3)} ms"
    if seconds < 59.95:
        return f"{number(seconds, 3)} s"
    if (whole := round(seconds)) < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if (minutes := round(seconds / 60)) < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} m"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def rows(value: float | None) -> str:
    """A noise scale: two digits, because it is known to an order of magnitude.

    Example:
        >>> rows(1.0), rows(314.2), rows(None)
        ('1 row', '310 rows', 'n/a')
    """
    if value is None:
        return MISSING
    text = number(value, 2)
    return f"{text} row{'' if text == '1' else 's'}"


def noise_in_words(noise_scale: float | None, batch_size: int) -> str:
    """What tr Σ/|G|² says about the batch size, no more precisely than it is known.

    A batch of tr Σ/|G|² rows has an averaged gradient whose variance equals its squared mean: far below, the variance
    still falls by what a larger batch averages; far above, there is little left to average away
    (McCandlish et al. 2018, arXiv:1812.06162, the "simple" noise scale).
    """
    if noise_scale is None or not math.isfinite(noise_scale):
        return "not estimated, for want of two leaves a step or of a gradient that stands out from its noise"
    batch = f"a batch of {count(batch_size)}"
    if 3 * batch_size < noise_scale:
        meaning = f"{batch} is well below it, so its gradient is mostly noise and more rows would still pay"
    elif batch_size > 3 * noise_scale:
        meaning = f"{batch} is well above it, so its gradient is mostly signal and more rows would buy little"
    else:
        meaning = f"{batch} is of the same order, so its gradient is about as much signal as noise"
    return f"tr Σ/|G|² ≈ {rows(noise_scale)}, an order of magnitude; {meaning}"
