"""The norm of the gradient's part in each parameter array, by steps: where gradients vanish or explode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from shardsgd.coordinator.charts import Chart, Line, spread
from shardsgd.coordinator.curves import Series, series, smoothed
from shardsgd.coordinator.records import StepRecord
from shardsgd.formatting import count, number

# More lines than that cannot be told apart.
_MOST_LINES = 8


def layer_chart(steps: Sequence[StepRecord], x_label: str) -> Chart | None:
    """A line for each array, averaged; of many arrays only some are drawn, and all are in the table.

    Args:
        steps: oldest first.
        x_label: of the axis of steps.
    """
    known = [(record.step, record.layer_norms) for record in steps if record.layer_norms]
    if not known:
        return None
    names = tuple(known[0][1])
    norms = np.stack([series([layers.get(name) for _, layers in known]) for name in names])
    finite = np.isfinite(norms).all(axis=0)
    if not finite.any():
        return None
    x = series([step for step, _ in known])[finite]
    span = max(1, len(x) // 40)
    averages = {name: smoothed(values, span) for name, values in zip(names, norms[:, finite], strict=True)}
    drawn = _drawn(averages)
    if not drawn:
        return None
    return Chart(
        key="layers",
        title="Gradient norm by layer",
        caption=_caption(averages, drawn, span),
        x_label=x_label,
        y_label="‖g‖ of an array (loss per unit of parameter)",
        lines=tuple(_line(name, number, x, averages[name], span) for number, name in enumerate(drawn)),
        header=("step", *names),
        table=tuple(
            (count(int(x[i])), *(number(average[i], 3) for average in averages.values())) for i in spread(len(x))
        ),
        log_y=True,
    )


def _drawn(averages: Mapping[str, Series]) -> list[str]:
    """The arrays that have a line: all, or the weights, or some of them, always with the first and the last."""
    names = [name for name, average in averages.items() if (average > 0).any()]
    if len(names) > _MOST_LINES:
        names = [name for name in names if name.endswith(".weight")]
    if len(names) > _MOST_LINES:
        names = [names[round(i)] for i in np.linspace(0, len(names) - 1, _MOST_LINES)]
    return names


def _line(name: str, number: int, x: Series, average: Series, span: int) -> Line:
    # Where it begins an average averages hardly anything; zeros have no place on a logarithmic axis.
    shown = (average > 0) & (np.arange(len(x)) >= (span // 2 if len(x) > 1 else 0))
    if not shown.any():
        shown = average > 0
    return Line(name, "one of many", x[shown], average[shown], number)


def _caption(averages: Mapping[str, Series], drawn: Sequence[str], span: int) -> str:
    last = {name: float(average[-1]) for name, average in averages.items()}
    most, least = max(last, key=last.__getitem__), min(last, key=last.__getitem__)
    over = f" (averaged over about {count(span)} steps)" if span > 1 else ""
    some = "" if len(drawn) == len(averages) else f" Of {count(len(averages))} arrays {count(len(drawn))} are drawn."
    return (
        f"In the end{over} the largest part of the gradient was {most}'s, {number(last[most], 3)}, and the smallest"
        f" {least}'s, {number(last[least], 3)}.{some}"
    )
