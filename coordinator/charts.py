"""What one picture of the report is: what to draw, what one sees in it, and the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shardsgd.coordinator.curves import Series, drawable, series
from shardsgd.coordinator.records import StepRecord
from shardsgd.formatting import plural

_TABLE_ROWS = 12
Role = Literal["raw", "main", "points", "reference", "bound", "one of many"]


@dataclass(frozen=True)
class Line:
    """One line of a picture; its role decides how it is drawn.

    Attributes:
        label: in the legend.
        role: what it is to the reader.
        x: strictly finite.
        y: likewise, and as many; of a "bound" NaN where it has a gap.
        number: among lines of the role "one of many", which differ by it.
    """

    label: str
    role: Role
    x: Series
    y: Series
    number: int = 0


@dataclass(frozen=True)
class Chart:
    """One picture of the report with its text.

    Attributes:
        key: short and unique within the report.
        title: the heading.
        caption: what one sees, in one sentence.
        x_label: with the unit.
        y_label: likewise.
        lines: what is drawn, from back to front.
        header: of the table.
        table: the numbers as text.
        log_x: whether x is drawn logarithmically, with the points' own values as ticks.
        log_y: whether y is drawn logarithmically.
        percent_y: whether y is a share, drawn in percent.
    """

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    header: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]
    log_x: bool = False
    log_y: bool = False
    percent_y: bool = False


@dataclass(frozen=True)
class Part:
    """One part of a whole.

    Attributes:
        label: beside it.
        share: of the whole.
        text: the share as text.
        stressed: whether it is the part the others are measured by.
    """

    label: str
    share: float
    text: str
    stressed: bool = False


@dataclass(frozen=True)
class Stack:
    """A whole as one stacked bar, drawn with a line for each part.

    Attributes:
        key: short and unique within the report.
        title: the heading.
        caption: what one sees, in one sentence.
        x_label: with the unit.
        y_label: what the whole is.
        parts: from the first to the last; their shares add up to 1.
    """

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    parts: tuple[Part, ...]


def step_label(steps_per_epoch: int) -> str:
    """The label of an axis of steps."""
    return f"step ({plural(steps_per_epoch, 'step')} an epoch)"


def by_step(steps: Sequence[StepRecord], value: Callable[[StepRecord], float | None]) -> tuple[Series, Series]:
    """The steps and the values of those that have one that can be drawn."""
    return drawable(series([record.step for record in steps]), series([value(record) for record in steps]))


def spread(length: int) -> list[int]:
    """Indices of some of the values, evenly spread, with the first and the last."""
    return sorted({round(index) for index in np.linspace(0, length - 1, min(length, _TABLE_ROWS))})
