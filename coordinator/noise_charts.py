"""What the batch size bought: the variance of the averaged gradient by rows, and the noise scale by steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shardsgd.coordinator.charts import Chart, Line, by_step, spread, step_label
from shardsgd.coordinator.curves import Series, is_wide, series, variance_exponent
from shardsgd.coordinator.records import StepRecord, VariancePoint
from shardsgd.formatting import count, interval, noise_in_words, number, plural
from shardsgd.spec import JobSpec

# How far from the estimates and the batch an end of an interval is drawn, as a factor.
_REACH = 4
_BOUND_POINTS = 500


def noise_charts(
    spec: JobSpec, steps: Sequence[StepRecord], variance: Sequence[VariancePoint], steps_per_epoch: int
) -> list[Chart]:
    """What the batch size bought: the variance by rows and the noise scale by steps, where they were measured."""
    x_label = step_label(steps_per_epoch)
    charts = (_variance_chart(spec, variance), _noise_scale_chart(spec, steps, x_label))
    return [chart for chart in charts if chart is not None]


def _variance_chart(spec: JobSpec, variance: Sequence[VariancePoint]) -> Chart | None:
    points = [
        point
        for point in sorted(variance, key=lambda point: point.rows)
        if all(np.isfinite(value) and value > 0 for value in (point.rows, point.measured, point.predicted))
    ]
    if not points:
        return None
    # The line is tr Σ / rows: it goes on beyond the last point, where nothing can be measured within one batch.
    x = series([point.rows for point in points])
    measured = series([point.measured for point in points])
    line = series([point.predicted for point in points])
    line_x = np.append(x, max(float(spec.batch.size), x[-1]))
    line_y = np.append(line, line[-1] * x[-1] / line_x[-1])
    ratios = measured / line
    exponent = variance_exponent(points)
    slope = "" if exponent is None else f" falls as rows^{exponent:.2f} (the law: rows^-1) and"
    return Chart(
        key="variance",
        title="Variance of the averaged gradient",
        caption=f"The measured variance{slope} is {_span(ratios)} times tr Σ/B;"
        f" at the batch of {plural(spec.batch.size, 'row')} the line gives {number(line_y[-1], 3)}.",
        x_label="rows averaged, B",
        y_label="variance (squared gradient units)",
        lines=(
            Line("tr Σ / B", "reference", line_x, line_y),
            Line("measured", "points", x, measured),
        ),
        header=("rows averaged", "measured", "tr Σ/B", "ratio"),
        table=tuple(
            (number(point.rows), number(point.measured), number(point.predicted), number(ratio, 3))
            for point, ratio in zip(points, ratios, strict=True)
        ),
        log_x=True,
        log_y=True,
    )


def _noise_scale_chart(spec: JobSpec, steps: Sequence[StepRecord], x_label: str) -> Chart | None:
    x, y = by_step(steps, lambda record: record.noise_scale)
    x, y = x[y > 0], y[y > 0]
    if not len(y):
        return None
    size = spec.batch.size
    ends = np.array([x[0], x[-1]])
    within = {record.step: (record.noise_scale_low, record.noise_scale_high) for record in steps}
    low, high = within[int(x[-1])]
    bounds = _bounds(steps, least=min(y.min(), size) / _REACH, most=max(y.max(), size) * _REACH)
    beyond = " Where no end of the interval is drawn, there is none or it is far beyond this picture." if bounds else ""
    return Chart(
        key="noise",
        title="Noise scale",
        caption=f"At step {count(int(x[-1]))}, tr Σ/|G|² ≈ {noise_in_words(float(y[-1]), size, low=low, high=high)}.{beyond}",
        x_label=x_label,
        y_label="tr Σ / |G|² (rows)",
        lines=(
            Line(f"batch ({plural(size, 'row')})", "reference", ends, np.full(2, float(size))),
            *bounds,
            Line("tr Σ / |G|², averaged", "main", x, y),
        ),
        header=("step", "tr Σ/|G|² in rows", "95% interval"),
        table=tuple((count(int(x[i])), number(y[i], 3), interval(*within[int(x[i])])) for i in spread(len(x))),
        log_y=is_wide(np.append(y, size)),
    )


def _bounds(steps: Sequence[StepRecord], *, least: float, most: float) -> tuple[Line, ...]:
    """Both ends of the interval, as far as they are within these limits; so that the first steps do not flatten the rest."""
    told = [record for record in steps if record.noise_scale_low is not None]
    # Evenly thinned: an average moves slowly, and gaps must stay gaps.
    told = told[:: max(1, len(told) // _BOUND_POINTS)]
    x = series([record.step for record in told])
    lines: list[Line] = []
    for end in ("low", "high"):
        y = series([getattr(record, f"noise_scale_{end}") for record in told])
        with np.errstate(invalid="ignore"):
            y[~((y >= least) & (y <= most))] = np.nan
        if np.isfinite(y).any():
            # A label that begins so is left out of the legend: one for both.
            lines.append(Line("_the other end" if lines else "95% interval", "bound", x, y))
    return tuple(lines)


def _span(values: Series) -> str:
    low, high = (number(float(value), 3) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
