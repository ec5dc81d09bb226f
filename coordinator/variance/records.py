"""What a measurement gives: its cells, the law they follow, overall and for each parameter array; and who listens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shardsgd.coordinator.records import finite
from shardsgd.model.variance import (
    Draw,
    Measured,
    finite_population,
    fitted_slope,
    measured_mean,
    predicted_variance,
)

DRAWS: tuple[Draw, ...] = ("with_replacement", "without_replacement")


@dataclass(frozen=True)
class Samples:
    """Squared distances of the batches of one size, drawn one way.

    Attributes:
        draw: how the batches were drawn.
        batch: B.
        squared: [R, arrays] float64, ‖g_B − g‖² of each batch for each parameter array.
    """

    draw: Draw
    batch: int
    squared: NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One batch size and way to draw, as a line of variance.csv.

    Attributes:
        sampling: "with_replacement" or "without_replacement".
        batch: B.
        repeats: R, batches drawn.
        measured: mean of ‖g_B − g‖² over them.
        ci_low: lower end of its 95% interval.
        ci_high: upper end.
        predicted: tr Σ/B, without replacement times (n − B)/(n − 1).
    """

    sampling: Draw
    batch: int
    repeats: int
    measured: float
    ci_low: float
    ci_high: float
    predicted: float


@dataclass(frozen=True)
class Law:
    """The variance of a gradient, or of one parameter array's part of it, against the batch size.

    Attributes:
        trace_exact: tr Σ with divisor n, from the gradients of all rows.
        gradient_norm_squared: |G|² = ‖g‖², of the loss without the regularizer.
        noise_scale: B_simple = tr Σ/|G|², in rows; None where |G|² is 0.
        slope: k of variance ∝ B^k with replacement; None with fewer than two batch sizes.
        slope_ci_low: lower end of its 95% interval.
        slope_ci_high: upper end.
        slope_without_replacement: the same without replacement, divided by (n − B)/(n − 1); B = n left out.
        slope_without_replacement_ci_low: lower end.
        slope_without_replacement_ci_high: upper end.
        cells: by batch size, with replacement first.
    """

    trace_exact: float
    gradient_norm_squared: float
    noise_scale: float | None
    slope: float | None
    slope_ci_low: float | None
    slope_ci_high: float | None
    slope_without_replacement: float | None
    slope_without_replacement_ci_low: float | None
    slope_without_replacement_ci_high: float | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Layer:
    """One parameter array.

    Attributes:
        name: such as `layer0.weight`.
        parameters: its elements.
        law: of its part of the gradient.
    """

    name: str
    parameters: int
    law: Law


@dataclass(frozen=True)
class Variance:
    """A measurement, as variance.json. Nothing in it depends on who computed it.

    Attributes:
        name: the job's.
        state: SUCCEEDED, INTERRUPTED or FAILED; what was measured before counts in each of them.
        reason: in words.
        rows: n.
        repeats: R that was asked for; None: not said, so that each cell has its own.
        seed: of the batches, the job's.
        step: updates done before θ; None where that is not known.
        law: overall.
        layers: of each parameter array.
    """

    name: str
    state: Literal["SUCCEEDED", "INTERRUPTED", "FAILED"]
    reason: str
    rows: int
    repeats: int | None
    seed: int
    step: int | None
    law: Law
    layers: tuple[Layer, ...]


class VarianceObserver(Protocol):
    """Follows a measurement. Called from its thread, so it must be quick."""

    def phase(self, text: str) -> None:
        """A stage has begun, such as "starting 2 Ray workers"."""

    def note(self, text: str) -> None:
        """Something the user should know, once."""

    def progress(self, done: int, total: int, doing: str) -> None:
        """Gradients of `done` of `total` rows are computed; what is being measured, in words."""


class Unobserved:
    """An observer that shows nothing."""

    def phase(self, text: str) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""

    def progress(self, done: int, total: int, doing: str) -> None:
        """Shows nothing."""


def law_of(
    trace: float, norm_squared: float, rows: int, samples: Sequence[tuple[Draw, int, NDArray[np.float64]]]
) -> Law:
    """The law that measured cells follow.

    Args:
        trace: tr Σ.
        norm_squared: |G|².
        rows: n.
        samples: of each cell how it was drawn, B, and [R] squared distances.
    """
    means = [(draw, batch, measured_mean(squared)) for draw, batch, squared in samples]
    cells = tuple(
        Cell(draw, batch, len(squared), mean.value, mean.low, mean.high, predicted_variance(trace, rows, batch, draw))
        for (draw, batch, mean), (_, _, squared) in zip(means, samples, strict=True)
    )
    with_replacement = [(batch, mean) for draw, batch, mean in means if draw == "with_replacement"]
    without = [
        (batch, _divided(mean, finite_population(rows, batch)))
        for draw, batch, mean in means
        if draw == "without_replacement" and batch < rows
    ]
    return Law(
        trace,
        norm_squared,
        trace / norm_squared if norm_squared > 0 else None,
        *_slope(with_replacement),
        *_slope(without),
        cells,
    )


def as_json(variance: Variance) -> dict[str, Any]:
    """A measurement as the object of variance.json and `--json`: the overall law beside the other fields."""

    def flat(value: Variance | Layer) -> dict[str, Any]:
        fields = asdict(value)
        law: dict[str, Any] = fields.pop("law")
        # Last, being the longest.
        cells = law.pop("cells")
        return {**fields, **law, "cells": cells}

    fields = flat(variance)
    fields.pop("layers")
    whole: dict[str, Any] = finite(fields | {"layers": [flat(layer) for layer in variance.layers]})
    return whole


def total(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R] sums over the parameter arrays of [R, arrays], each rounded once."""
    return np.array([math.fsum(row) for row in squared.tolist()])


def _slope(points: Sequence[tuple[int, Measured]]) -> tuple[float | None, float | None, float | None]:
    slope = fitted_slope([batch for batch, _ in points], [mean for _, mean in points])
    return (None, None, None) if slope is None else (slope.value, slope.low, slope.high)


def _divided(mean: Measured, factor: float) -> Measured:
    return Measured(mean.value / factor, mean.low / factor, mean.high / factor, mean.error / factor)
