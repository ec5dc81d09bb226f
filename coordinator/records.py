"""What a run reports: a record a step, a record a validation, the summary; and who listens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class StepRecord:
    """One update of the parameters, as a line of metrics.jsonl.

    Attributes:
        step: t, from 0; the step that uses θ_t.
        epoch: passes over the training rows completed before this step, from 0.
        loss: L at θ_t estimated from the step's rows: their mean loss plus the regularizer.
        learning_rate: η of the step: lr(t), or with `schedule.scale_invariant` gain · lr(⌊τ⌋).
        gradient_norm: ‖g‖ of the step's gradient of L.
        noise_trace: unbiased estimate of tr Σ from this step's leaves; None with fewer than two leaves.
        noise_scale: smoothed tr Σ over smoothed |G|², in rows; None while |G|² cannot be told from 0.
        step_seconds: wall-clock seconds from plan to update: the sum of the next five. (They are None in metrics of a version
            that did not measure them.)
        gather_seconds: what the worker that was busy longest spent on gathering rows, as far as it had not done so before.
        leaf_seconds: what it spent in the leaf program.
        reduce_seconds: what it spent on adding up gradients.
        exchange_seconds: from plan to the last answer, beyond that worker's time: messages, wake-ups, waiting for a core.
        update_seconds: finishing the reduction tree and updating.
        idle_seconds: what a worker waited in all this, on average over the workers.
        noise_norm_squared: unbiased estimate of |G|² from this step's leaves; may be negative. None as `noise_trace`.
        noise_scale_low: lower end of the 95% interval of the smoothed noise scale, in rows.
        noise_scale_high: its upper end. It alone is None: there is none, as |G|² may be 0. Both are: nothing can be told.
        gain: r_t, how many steps of the schedule this one was; None unless `schedule.scale_invariant`.
        layer_norms: norm of g's part in each parameter array, by the array's name; their squares add up to ‖g‖².
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    gradient_norm: float
    noise_trace: float | None
    noise_scale: float | None
    step_seconds: float
    gather_seconds: float | None = None
    leaf_seconds: float | None = None
    reduce_seconds: float | None = None
    exchange_seconds: float | None = None
    update_seconds: float | None = None
    idle_seconds: float | None = None
    noise_norm_squared: float | None = None
    noise_scale_low: float | None = None
    noise_scale_high: float | None = None
    gain: float | None = None
    layer_norms: Mapping[str, float] | None = None


@dataclass(frozen=True)
class ValidationRecord:
    """The held-out rows at θ_step, as a line of metrics.jsonl.

    Attributes:
        step: updates done before it.
        epoch: passes over the training rows done before it.
        loss: mean loss of the held-out rows, without regularizer.
        accuracy: share of rows classified right; None for regression.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Incident:
    """Something that happened to the workers, as a line of metrics.jsonl: `{"step": …, "incident": {…}}`.

    Attributes:
        step: in which it happened, or before which.
        kind: "lost" (dead, hung or not to be trusted), "start failed", "left" (let go, or given notice), "joined"; or
            "recovered": a round that was disturbed is complete.
        worker: whose; None for "recovered".
        reason: in words.
        leaves: leaves (or chunks of an evaluation, or blocks of an update) computed once more ("recovered").
        seconds: from noticing the disturbance to the end of the round ("recovered").
    """

    step: int
    kind: str
    worker: int | None
    reason: str
    leaves: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class VariancePoint:
    """The variance of an averaged gradient at one number of rows, averaged over the steps of a run.

    Attributes:
        rows: how many rows were averaged.
        measured: half the mean squared distance between two such averages (weighted where they differ by a row): unbiased.
        predicted: tr Σ / rows, with tr Σ from all leaves of the same steps.
    """

    rows: float
    measured: float
    predicted: float


@dataclass(frozen=True)
class GradientNoise:
    """What the batch size bought. `None` where it could not be estimated.

    Attributes:
        noise_trace: smoothed tr Σ at the end.
        gradient_norm_squared: smoothed |G|² at the end.
        noise_scale: their ratio, in rows.
        variance: measured against predicted variance, by rows averaged.
        noise_scale_low: lower end of the noise scale's 95% interval, in rows.
        noise_scale_high: its upper end. It alone is None: there is none, as |G|² may be 0. Both are: nothing can be told.
        noise_trace_low: lower end of the 95% interval of tr Σ.
        noise_trace_high: its upper end.
        gradient_norm_squared_low: lower end of the 95% interval of |G|²; may be negative.
        gradient_norm_squared_high: its upper end.
    """

    noise_trace: float | None
    gradient_norm_squared: float | None
    noise_scale: float | None
    variance: tuple[VariancePoint, ...]
    noise_scale_low: float | None = None
    noise_scale_high: float | None = None
    noise_trace_low: float | None = None
    noise_trace_high: float | None = None
    gradient_norm_squared_low: float | None = None
    gradient_norm_squared_high: float | None = None


@dataclass(frozen=True)
class Summary:
    """How a run ended, as summary.json.

    Attributes:
        name: the job's.
        state: SUCCEEDED (a stop rule held), INTERRUPTED (resumable) or FAILED.
        reason: in words: the stop rule that held, or what went wrong.
        steps: updates done, over all resumes.
        epochs: steps over steps per epoch.
        train_loss: L over all training rows at the final parameters, regularizer included.
        validation: `{"loss": …, "accuracy": …}` at the final parameters; None where nothing was held out.
        parameters_sha256: of the raw little-endian bytes of every array in order of its name.
        seconds: wall-clock time in the step loop, over all resumes.
        samples_per_second: training rows per such second.
        workers: how many computed at the end.
        recoveries: worker losses survived, over all resumes.
        gradient_noise: what the batch size bought.
        leaves_repeated: leaves asked for more than once, in this session.
        answers_dropped: answers that came too late or twice, in this session.
    """

    name: str
    state: Literal["SUCCEEDED", "INTERRUPTED", "FAILED"]
    reason: str
    steps: int
    epochs: float
    train_loss: float | None
    validation: dict[str, float | None] | None
    parameters_sha256: str
    seconds: float
    samples_per_second: float
    workers: int
    recoveries: int
    gradient_noise: GradientNoise
    leaves_repeated: int = 0
    answers_dropped: int = 0


@dataclass(frozen=True)
class Pace:
    """How fast a run is and how much is left.

    Attributes:
        samples_per_second: rows per second, smoothed over the last steps.
        fraction_done: share of the work until the nearest countable stop rule, None where only open-ended rules are set.
        eta_seconds: time left until that rule, None likewise.
    """

    samples_per_second: float
    fraction_done: float | None
    eta_seconds: float | None


class Observer(Protocol):
    """Follows a run. Called from the step loop's thread, so it must be quick."""

    def phase(self, text: str) -> None:
        """A stage before or after the steps has begun, such as "starting 2 workers"."""

    def note(self, text: str) -> None:
        """Something the user should know, once."""

    def step(self, record: StepRecord, pace: Pace) -> None:
        """A step is done."""

    def validation(self, record: ValidationRecord) -> None:
        """The held-out rows were evaluated."""

    def incident(self, record: Incident) -> None:
        """Something happened to the workers."""


class Silent:
    """An observer that shows nothing."""

    def phase(self, text: str) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Shows nothing."""

    def validation(self, record: ValidationRecord) -> None:
        """Shows nothing."""

    def incident(self, record: Incident) -> None:
        """Shows nothing."""


def incident_text(incident: Incident) -> str:
    """An incident as a line for the user: "worker 1 lost in step 7: its connection closed"."""
    when = f"before step {incident.step}" if incident.kind in ("joined", "left") else f"in step {incident.step}"
    what = f"worker {incident.worker} {incident.kind} {when}"
    return f"{what}: {incident.reason}" if incident.reason else what


def as_json(summary: Summary) -> dict[str, Any]:
    """A summary as the object of summary.json and `--json`."""
    fields: dict[str, Any] = finite(asdict(summary))
    return fields


def finite(value: Any) -> Any:
    """Anything made of dicts, sequences and numbers, with null for the NaN and infinities that JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
