"""Advice as a table for the terminal, and as an object for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from shardsgd.coordinator.advice.words import sentences
from shardsgd.coordinator.records import finite
from shardsgd.formatting import MISSING, count, number

if TYPE_CHECKING:
    from shardsgd.coordinator.advice.decide import Advice, Choice

_COLUMNS = ("", "B", "workers", "ms a step", "rows/s", "efficiency", "steps", "goodput", "rate")


def advice_table(advice: Advice) -> Table:
    """What was measured, a row a choice; the present one and the advised one are marked.

    "steps" is 1 + B_s/B; "goodput" is that over the present choice's; "rate" the learning rate that goes with B.
    """
    table = Table(box=None, header_style="dim", padding=(0, 1), collapse_padding=True, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name else "left")
    for choice in advice.choices:
        table.add_row(_mark(choice, advice), *_cells(choice))
    return table


def advice_object(advice: Advice) -> dict[str, Any]:
    """All of it, as advice.json and `--json` have it; what has no upper bound is null."""
    fields: dict[str, Any] = finite(asdict(advice))
    return {"advice": sentences(advice), **fields}


def _cells(choice: Choice) -> tuple[str, ...]:
    time = choice.time
    milliseconds = (1e3 * each for each in (time.seconds, time.seconds_low, time.seconds_high))
    share = MISSING if choice.efficiency is None else f"{choice.efficiency:.0%}"
    return (
        count(time.batch),
        count(time.workers),
        _span(*milliseconds),
        number(choice.rows_per_second, 2),
        share,
        number(choice.steps_factor, 3),
        _span(choice.goodput, choice.goodput_low, choice.goodput_high),
        number(choice.learning_rate, 2),
    )


def _mark(choice: Choice, advice: Advice) -> str:
    if choice == advice.present:
        return "now"
    return "best" if advice.verdict == "change" and choice == advice.favoured else ""


def _span(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low == high:
        return number(value, 2)
    return f"{number(value, 2)} ({number(low, 2)}–{number(high, 2)})"
