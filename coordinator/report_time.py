"""The section of report.html on where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from shardsgd.coordinator.records import StepRecord
from shardsgd.coordinator.report_figures import figure
from shardsgd.coordinator.time_charts import PartTime, step_times, time_chart, time_in_words

_HEADER = ("part", "median ms", "share of a step")


def time_section(steps: Sequence[StepRecord]) -> str | None:
    """A sentence, a picture and a table; None where no step says where its time went."""
    times = step_times(steps)
    if times is None:
        return None
    whole = PartTime("a step", times.seconds, 1.0)
    digits = _digits(times.seconds)
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in _HEADER)
    body = "".join(_row(part, digits) for part in (*times.parts, whole))
    return (
        f"<p>{escape(time_in_words(times))}</p>\n"
        f'<div class="figures">\n{figure(time_chart(times, len(steps)))}\n'
        f'<div><h3>In numbers</h3>\n<table class="parts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f"<tfoot>{_row(times.idle, digits)}</tfoot></table>\n"
        '<p class="soft">Gather (of rows, as far as it was not done before), leaf and reduce (adding up gradients) are'
        " those of the worker that was busy longest. Exchange is messages, wake-ups and waiting for a core; update also"
        " finishes the sum. Idle is what a worker waited within the step, on average: it is beside these parts, not one"
        " of them. Medians need not add up; shares are scaled until they do.</p></div>\n</div>"
    )


def _digits(seconds: float) -> int:
    """Decimals of milliseconds: one number of them in the whole table, so that its points are below each other."""
    return 3 if seconds < 0.1 else 2 if seconds < 1 else 1


def _row(part: PartTime, digits: int) -> str:
    return (
        f'<tr><th scope="row">{escape(part.label)}</th>'
        f"<td>{1000 * part.seconds:,.{digits}f}</td><td>{100 * part.share:.1f}%</td></tr>"
    )
