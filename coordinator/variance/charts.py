"""Pictures of a measurement: the variance against the batch size, drawn both ways, against the prediction, and by array."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from shardsgd.coordinator.charts import Chart, Line
from shardsgd.coordinator.curves import Series, series
from shardsgd.coordinator.variance.records import Cell, Variance
from shardsgd.formatting import count, number, plural
from shardsgd.model.variance import Draw, predicted_variance

_MOST_GAPS = 6
_CURVE_POINTS = 200
# Those with the largest tr Σ; more lines cannot be told apart.
_MOST_ARRAYS = 8
_X_LABEL, _Y_LABEL = "batch size B (rows)", "E‖g_B − g‖² (squared gradient units)"


def variance_charts(variance: Variance) -> list[Chart]:
    """All pictures for which something was measured."""
    charts = (
        _law_chart(variance, "with_replacement"),
        _law_chart(variance, "without_replacement"),
        _ratio_chart(variance),
        _layers_chart(variance),
    )
    return [chart for chart in charts if chart is not None]


def cells_of(cells: Sequence[Cell], draw: Draw) -> list[Cell]:
    """Those that were drawn one way."""
    return [cell for cell in cells if cell.sampling == draw]


def _law_chart(variance: Variance, draw: Draw) -> Chart | None:
    """Measured against predicted variance. Without replacement also the line tr Σ/B that it departs from near n."""
    cells = _drawable(cells_of(variance.law.cells, draw))
    if not cells:
        return None
    law, rows = variance.law, variance.rows
    sizes = series([cell.batch for cell in cells])
    ticks = _ticks(sizes)
    without = draw == "without_replacement"
    # Its x are the ticks.
    lines = [Line("tr Σ / B", "raw" if without else "reference", ticks, law.trace_exact / ticks)]
    if without:
        curve = series(sorted({round(size) for size in np.geomspace(sizes[0], sizes[-1], _CURVE_POINTS).tolist()}))
        predicted = series([predicted_variance(law.trace_exact, rows, int(size), draw) for size in curve])
        lines.append(Line("tr Σ / B · (n − B)/(n − 1)", "reference", curve, predicted))
        slope, low, high = (
            law.slope_without_replacement,
            law.slope_without_replacement_ci_low,
            law.slope_without_replacement_ci_high,
        )
        falls = "divided by (n − B)/(n − 1), it falls"
    else:
        slope, low, high = law.slope, law.slope_ci_low, law.slope_ci_high
        falls = "the measured variance falls"
    low_ends, high_ends = series([cell.ci_low for cell in cells]), series([cell.ci_high for cell in cells])
    lines += [*_bounds(sizes, low_ends, high_ends), Line("measured", "points", sizes, _measured(cells))]
    words = "" if slope is None else f"; {falls} as B^{slope:.3f} (95%: {low:.3f} to {high:.3f})"
    return Chart(
        key=draw.replace("_", "-"),
        title=f"Variance, drawn {draw.replace('_', ' ')}",
        caption=f"Means over {_repeats(cells)} batches of each size{words}.",
        x_label=_X_LABEL,
        y_label=_Y_LABEL,
        lines=tuple(lines),
        header=("B", "batches", "measured", "95% interval", "predicted", "ratio"),
        table=tuple(
            (
                count(cell.batch),
                count(cell.repeats),
                number(cell.measured),
                f"{number(cell.ci_low)} to {number(cell.ci_high)}",
                number(cell.predicted),
                number(cell.measured / cell.predicted),
            )
            for cell in cells
        ),
        log_x=True,
        log_y=True,
    )


def _ratio_chart(variance: Variance) -> Chart | None:
    cells = _drawable(cells_of(variance.law.cells, "with_replacement"))
    if not cells:
        return None
    sizes = series([cell.batch for cell in cells])
    ticks = _ticks(sizes)
    ratios = series([cell.measured / cell.predicted for cell in cells])
    hits = sum(cell.ci_low <= cell.predicted <= cell.ci_high for cell in cells)
    return Chart(
        key="ratio",
        title="Measured over predicted variance",
        caption=f"Drawn with replacement; tr Σ/B lies inside the 95% interval at {hits} of {plural(len(cells), 'batch size')}.",
        x_label=_X_LABEL,
        y_label="measured / (tr Σ / B)",
        lines=(
            Line("the law", "reference", ticks, np.ones_like(ticks)),
            *_bounds(
                sizes,
                series([cell.ci_low / cell.predicted for cell in cells]),
                series([cell.ci_high / cell.predicted for cell in cells]),
            ),
            Line("measured", "points", sizes, ratios),
        ),
        header=("B", "ratio", "95% interval"),
        table=tuple(
            (
                count(cell.batch),
                number(ratio),
                f"{number(cell.ci_low / cell.predicted)} to {number(cell.ci_high / cell.predicted)}",
            )
            for cell, ratio in zip(cells, ratios, strict=True)
        ),
        log_x=True,
    )


def _layers_chart(variance: Variance) -> Chart | None:
    arrays = sorted(variance.layers, key=lambda layer: -layer.law.trace_exact)[:_MOST_ARRAYS]
    drawn = [(layer, _drawable(cells_of(layer.law.cells, "with_replacement"))) for layer in arrays]
    drawn = [(layer, cells) for layer, cells in drawn if cells]
    if len(drawn) < 2:
        return None
    some = "" if len(arrays) == len(variance.layers) else f", the {len(arrays)} with the largest tr Σ"
    ticks = _ticks(series([cell.batch for cell in drawn[0][1]]))
    lines = [
        Line("tr Σ / B of all", "reference", ticks, variance.law.trace_exact / ticks),
        *(
            Line(layer.name, "one of many", series([cell.batch for cell in cells]), _measured(cells), place)
            for place, (layer, cells) in enumerate(drawn)
        ),
    ]
    return Chart(
        key="arrays",
        title="Variance of each parameter array",
        caption=f"Measured with replacement, of each array's part of the gradient{some}.",
        x_label=_X_LABEL,
        y_label=_Y_LABEL,
        lines=tuple(lines),
        header=("B", *(layer.name for layer, _ in drawn)),
        table=tuple(
            (count(size), *(number(next((c.measured for c in cells if c.batch == size), None)) for _, cells in drawn))
            for size in sorted({cell.batch for _, cells in drawn for cell in cells})
        ),
        log_x=True,
        log_y=True,
    )


def _drawable(cells: Sequence[Cell]) -> list[Cell]:
    """Those that a logarithmic axis can show: not the variance at B = n without replacement, which is 0."""
    return [cell for cell in cells if np.isfinite(cell.measured) and cell.measured > 0 and cell.predicted > 0]


def _repeats(cells: Sequence[Cell]) -> str:
    fewest, most = (end(cell.repeats for cell in cells) for end in (min, max))
    return count(fewest) if fewest == most else f"{count(fewest)} to {count(most)}"


def _measured(cells: Sequence[Cell]) -> Series:
    return series([cell.measured for cell in cells])


def _ticks(sizes: Series) -> Series:
    """The first and the last batch size, and between them those that leave room for each other's labels."""
    gap = (math.log(sizes[-1]) - math.log(sizes[0])) / _MOST_GAPS
    ticks = [float(sizes[0])]
    for size in sizes[1:-1].tolist():
        if math.log(size / ticks[-1]) >= gap and math.log(float(sizes[-1]) / size) >= gap:
            ticks.append(size)
    return series([*ticks, float(sizes[-1])][: len(sizes)])


def _bounds(sizes: Series, low: Series, high: Series) -> tuple[Line, Line]:
    """Both ends of the interval; with a gap where the lower one is 0, which a logarithmic axis cannot show."""
    low = np.where(low > 0, low, np.nan)
    # A label that begins so is left out of the legend: one for both.
    return Line("95% interval", "bound", sizes, low), Line("_95% interval", "bound", sizes, high)
