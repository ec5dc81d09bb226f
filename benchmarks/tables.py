"""Markdown tables of measured numbers. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.results import Comparison, spread

_DIGITS = 3


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """With three digits that count; not more than three behind the point."""
    before = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(_DIGITS - before, 0)}f}"


def with_spread(values: Sequence[float]) -> str:
    """Median (least–most)."""
    middle, least, most = spread(list(values))
    return f"{number(middle)} ({number(least)}–{number(most)})"


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% confidence interval of a median, from the ranks of a binomial distribution in its normal approximation."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    first = max(0, math.floor(len(values) / 2 - half))
    return ordered[first], ordered[len(values) - 1 - first]


def reached(value: float, at_least: float | None) -> tuple[str, str]:
    """A target and whether it was reached, as two cells."""
    if at_least is None:
        return "", ""
    return number(at_least), "yes" if value >= at_least else "no"


def times(comparisons: Sequence[Comparison], *, unit: str = "ms", factor: float = 1e3) -> str:
    """Every contender's time of a repetition: a row a contender, a column a comparison."""
    names = list(dict.fromkeys(name for comparison in comparisons for name in comparison.seconds))
    head = [f"{unit}, median (least–most)", *(comparison.work for comparison in comparisons)]
    return table(head, ([name, *(_cell(comparison, name, factor) for comparison in comparisons)] for name in names))


def details(comparisons: Sequence[Comparison]) -> str:
    """What contenders say of where their time goes: a row each, a column a field; empty if none does."""
    rows = [
        (f"{comparison.work}, {name}", fields)
        for comparison in comparisons
        for name, fields in comparison.details.items()
        if fields
    ]
    return detail_table("ms, median over steps", rows) if rows else ""


def detail_table(head: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Named seconds as milliseconds: a row each, with a column for every such name that any of them has."""
    names = list(dict.fromkeys(name for _, fields in rows for name in fields if name.endswith("_seconds")))
    cells = (
        [title, *(number(1e3 * fields[name]) if name in fields else "–" for name in names)] for title, fields in rows
    )
    return table([head, *(name.removesuffix("_seconds") for name in names)], cells)


def _cell(comparison: Comparison, name: str, factor: float) -> str:
    values = comparison.seconds.get(name)
    return with_spread([factor * value for value in values]) if values else "–"
