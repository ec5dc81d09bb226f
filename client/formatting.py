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


def compact(value: float) -> str:
    """A number in as few characters as tell its size.

    Example:
        >>> compact(314.2), compact(1234.5), compact(31_420), compact(2.5e6)
        ('310', '1.2k', '31k', '2.5M')
    """
    rounded = float(f"{value:.1e}")
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if size <= rounded < 1000 * size:
            return f"{rounded / size:g}{unit}"
    return number(rounded, 2)


def interval(low: float | None, high: float | None) -> str:
    """The interval of a noise scale, in rows.

    Args:
        low: lower end; None where nothing can be told.
        high: upper end; None where there is none.

    Example:
        >>> interval(903.0, 1699.0), interval(120.0, None), interval(None, None)
        ('900 to 1,700', 'at least 120', 'n/a')
    """
    if low is None:
        return MISSING
    return f"at least {number(low, 2)}" if high is None else f"{number(low, 2)} to {number(high, 2)}"


def rows_within(value: float | None, low: float | None, high: float | None) -> str:
    """A noise scale with its interval: two digits of the ends, and one or two more of what is between them.

    Args:
        value: tr Σ/|G|², in rows; None where |G|² is estimated below 0.
        low: lower end; None where nothing can be told.
        high: upper end; None where there is none.

    Example:
        >>> rows_within(1234.4, 903.0, 1699.0), rows_within(314.2, 120.0, None), rows_within(None, 120.0, None)
        ('1,234 rows (900 to 1,700)', '314 rows (at least 120)', 'at least 120 rows')
        >>> rows_within(314.2, None, None)
        '310 rows'
    """
    if low is None:
        return rows(value)
    if value is None:
        return f"at least {rows(low)}"
    text = number(value, 4 if value >= 1000 else 3)
    return f"{text} row{'' if text == '1' else 's'} ({interval(low, high)})"


def noise_in_words(
    noise_scale: float | None, batch_size: int, *, low: float | None = None, high: float | None = None
) -> str:
    """What tr Σ/|G|² says about the batch size, no more precisely than it is known.

    Args:
        noise_scale: tr Σ/|G|², in rows.
        batch_size: what it is compared with.
        low: lower end of its 95% interval; None where nothing can be told.
        high: upper end; None where there is none.

    A batch of tr Σ/|G|² rows has an averaged gradient whose variance equals its squared mean: far below, the variance
    still falls by what a larger batch averages; far above, there is little left to average away
    (McCandlish et al. 2018, arXiv:1812.06162, the "simple" noise scale).
    """
    about = low if noise_scale is None else noise_scale
    if about is None or not math.isfinite(about):
        return "not estimated, for want of two leaves a step or of a gradient that stands out from its noise"
    batch = f"a batch of {count(batch_size)}"
    if 3 * batch_size < about:
        meaning = f"{batch} is well below it, so its gradient is mostly noise and more rows would still pay"
    elif noise_scale is None:
        meaning = f"{batch} may be below it or above"
    elif batch_size > 3 * noise_scale:
        meaning = f"{batch} is well above it, so its gradient is mostly signal and more rows would buy little"
    else:
        meaning = f"{batch} is of the same order, so its gradient is about as much signal as noise"
    return f"{rows_within(noise_scale, low, high)}, a guide to an order of magnitude; {meaning}"
