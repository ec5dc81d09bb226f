"""How a training went: loss, accuracy, learning rate, gain and gradient norms by steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shardsgd.coordinator.charts import Chart, Line, by_step, spread, step_label
from shardsgd.coordinator.curves import Series, drawable, is_wide, series, smoothed
from shardsgd.coordinator.layer_charts import layer_chart
from shardsgd.coordinator.records import StepRecord, ValidationRecord
from shardsgd.formatting import count, number, percent, plural
from shardsgd.spec import JobSpec


def training_charts(
    spec: JobSpec, steps: Sequence[StepRecord], validations: Sequence[ValidationRecord], steps_per_epoch: int
) -> list[Chart]:
    """How the training went: loss, accuracy, rate, gain, gradient norms; without those that have nothing to show."""
    x_label = step_label(steps_per_epoch)
    charts = (
        _loss_chart(spec, steps, validations, x_label),
        _accuracy_chart(validations, x_label),
        _learning_rate_chart(steps, x_label),
        _gain_chart(spec, steps, x_label),
        _gradient_norm_chart(steps, x_label),
        layer_chart(steps, x_label),
    )
    return [chart for chart in charts if chart is not None]


def _loss_chart(
    spec: JobSpec, steps: Sequence[StepRecord], validations: Sequence[ValidationRecord], x_label: str
) -> Chart | None:
    x, y = by_step(steps, lambda record: record.loss)
    validation_x, validation_y = drawable(
        series([record.step for record in validations]), series([record.loss for record in validations])
    )
    span = max(1, len(y) // 40)
    average = smoothed(y, span)
    caption: list[str] = []
    lines: list[Line] = []
    if len(y):
        over = f" (averaged over about {count(span)} steps)" if span > 1 else ""
        caption.append(f"the loss of a step's rows {_course(average)}{over}")
        lines += _with_average("rows of a step", x, y, average, span)
    if len(validation_y):
        best = int(np.argmin(validation_y))
        caption.append(
            f"the loss of the held-out rows {_course(validation_y)},"
            f" its lowest being {number(validation_y[best])} after step {count(int(validation_x[best]))}"
        )
        lines.append(Line("held-out rows", "points", validation_x, validation_y))
    if len(y) < len(steps):
        lost = int(np.argmin(np.isfinite(series([record.loss for record in steps]))))
        caption.append(f"at step {count(steps[lost].step)} the loss was infinite, not a number or too large to draw")
    if not lines:
        return None
    unit = "squared label units" if spec.objective.loss == "squared_error" else "nats"
    return Chart(
        key="loss",
        title="Loss",
        caption=_sentence(caption),
        x_label=x_label,
        y_label=f"loss ({unit})",
        lines=tuple(lines),
        header=("step", "loss of its rows", "averaged", "held-out rows"),
        table=tuple(
            (count(int(x[i])), number(y[i]), number(average[i]), number(_last(validation_x, validation_y, x[i] + 1)))
            for i in spread(len(x))
        ),
        log_y=is_wide(np.concatenate([y, validation_y])),
    )


def _accuracy_chart(validations: Sequence[ValidationRecord], x_label: str) -> Chart | None:
    x, y = drawable(
        series([record.step for record in validations]), series([record.accuracy for record in validations])
    )
    if not len(y):
        return None
    best = int(np.argmax(y))
    return Chart(
        key="accuracy",
        title="Validation accuracy",
        caption=f"In the end {percent(y[-1])} of the held-out rows were classified right;"
        f" the most were {percent(y[best])}, after step {count(int(x[best]))}.",
        x_label=x_label,
        y_label="accuracy (% of held-out rows)",
        lines=(Line("held-out rows", "points", x, y),),
        header=("after step", "accuracy"),
        table=tuple((count(int(x[i])), percent(y[i])) for i in spread(len(x))),
        percent_y=True,
    )


def _learning_rate_chart(steps: Sequence[StepRecord], x_label: str) -> Chart | None:
    x, y = by_step(steps, lambda record: record.learning_rate)
    if not len(y):
        return None
    return Chart(
        key="rate",
        title="Learning rate",
        caption=f"The learning rate {_course(y)}.",
        x_label=x_label,
        y_label="learning rate (Δθ per unit of g)",
        lines=(Line("learning rate", "main", x, y),),
        header=("step", "learning rate"),
        table=tuple((count(int(x[i])), number(y[i])) for i in spread(len(x))),
        log_y=is_wide(y),
    )


def _gain_chart(spec: JobSpec, steps: Sequence[StepRecord], x_label: str) -> Chart | None:
    x, y = by_step(steps, lambda record: record.gain)
    tuned_for = spec.schedule.tuned_for
    if not len(y) or tuned_for is None:
        return None
    most = spec.batch.size / tuned_for
    passed = np.cumsum(y)
    return Chart(
        key="gain",
        title="Gain",
        caption=f"The gain {_course(y)}; by it {plural(len(y), 'step')} of {plural(spec.batch.size, 'row')} were as good as"
        f" {number(passed[-1])} of {plural(tuned_for, 'row')}.",
        x_label=x_label,
        y_label=f"gain (steps of {plural(tuned_for, 'row')} in one)",
        lines=(
            Line("all noise: B by tuned_for", "reference", np.array([x[0], x[-1]]), np.full(2, most)),
            Line("gain", "main", x, y),
        ),
        header=("step", "gain", "steps of the schedule"),
        table=tuple((count(int(x[i])), number(y[i]), number(passed[i])) for i in spread(len(x))),
    )


def _gradient_norm_chart(steps: Sequence[StepRecord], x_label: str) -> Chart | None:
    x, y = by_step(steps, lambda record: record.gradient_norm)
    if not len(y):
        return None
    span = max(1, len(y) // 40)
    average = smoothed(y, span)
    caption = [f"the norm of a step's gradient {_course(average)}"]
    if len(y) > 1:
        caption.append(f"the lowest was {number(y.min())}, the highest {number(y.max())}")
    return Chart(
        key="norm",
        title="Gradient norm",
        caption=_sentence(caption),
        x_label=x_label,
        y_label="‖g‖ (loss per unit of parameter)",
        lines=_with_average("a step", x, y, average, span),
        header=("step", "‖g‖", "averaged"),
        table=tuple((count(int(x[i])), number(y[i]), number(average[i])) for i in spread(len(x))),
        log_y=is_wide(y),
    )


def _with_average(label: str, x: Series, y: Series, average: Series, span: int) -> tuple[Line, ...]:
    """The values, and their average where it is one; where it begins it averages hardly anything and is not drawn."""
    if span == 1:
        return (Line(label, "main", x, y),)
    return Line(label, "raw", x, y), Line(f"{label}, averaged", "main", x[span // 2 :], average[span // 2 :])


def _last(x: Series, y: Series, until: float) -> float | None:
    """The y of the last x not after `until`."""
    index = int(np.searchsorted(x, until, side="right")) - 1
    return None if index < 0 else float(y[index])


def _course(y: Series) -> str:
    if y.min() == y.max():
        return f"was {number(y[0])} throughout" if len(y) > 1 else f"was {number(y[0])}"
    return f"went from {number(y[0])} to {number(y[-1])}"


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
