"""One session of a run: its steps, what happens between them, and how it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from shardsgd.coordinator.checkpoint import Job, Origin, save_checkpoint
from shardsgd.coordinator.checkpoint_writer import CheckpointWriter
from shardsgd.coordinator.loop import StepLoop, TrainState
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.pacing import Pacer, checkpoint_interval
from shardsgd.coordinator.records import GradientNoise, Observer, Summary, VariancePoint
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.stop import stop_reason
from shardsgd.errors import InterruptedJobError, JobError
from shardsgd.formatting import plural
from shardsgd.model.layout import parameters_sha256
from shardsgd.model.problem import Problem
from shardsgd.spec import JobSpec

_FLUSH_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a session ended.

    Attributes:
        summary: as in summary.json.
        parameters: final arrays by name.
        error: why the run did not succeed; None if it did.
    """

    summary: Summary
    parameters: Mapping[str, NDArray[Any]]
    error: JobError | InterruptedJobError | None


class Session:
    """Drives a step loop to its end and writes what it leaves behind."""

    def __init__(
        self,
        spec: JobSpec,
        problem: Problem,
        loop: StepLoop,
        rounds: Rounds,
        folder: RunFolder,
        origin: Origin,
        observer: Observer,
    ) -> None:
        self._spec = spec
        self._problem = problem
        self._loop = loop
        self._rounds = rounds
        self._members = rounds.members
        self._folder = folder
        self._job = Job(spec, problem.layout, origin)
        self._writer = CheckpointWriter(self._save)
        self._observer = observer
        self._saved_at = self._flushed_at = self._looked_at = time.monotonic()

    def run(self) -> Outcome:
        """Steps until a stop rule holds, the user interrupts or the job fails; leaves a checkpoint, parameters and a summary.

        Raises:
            TakenOverError: another session has taken the folder over; this one has left it alone since.
        """
        error: JobError | InterruptedJobError | None = None
        train_loss, validation = None, None
        state: Literal["SUCCEEDED", "INTERRUPTED", "FAILED"] = "SUCCEEDED"
        with self._saved_whatever_happens():
            try:
                reason = self._steps()
                self._observer.phase("evaluating")
                train_loss, validation = self._final_losses()
            except InterruptedJobError:
                state, reason = "INTERRUPTED", f"interrupted after {plural(self._loop.state.step, 'step')}"
                error = InterruptedJobError(f"{reason}; continue with: shardsgd train --resume {self._folder.path}")
            except JobError as failure:
                state, reason, error = "FAILED", str(failure), failure
        self._tell_incidents()
        final = self._loop.state
        # Copies: a view would keep the exchange's memory, with both states, for as long as somebody keeps the result.
        parameters = {name: view.copy() for name, view in self._problem.layout.views(final.theta).items()}
        self._folder.write_parameters(parameters)
        sampling = self._problem.sampling
        summary = Summary(
            name=self._spec.name,
            state=state,
            reason=reason,
            steps=final.step,
            epochs=final.step / sampling.steps_per_epoch,
            train_loss=train_loss,
            validation=validation,
            parameters_sha256=parameters_sha256(parameters),
            seconds=final.seconds,
            samples_per_second=sampling.rows_before(final.step) / final.seconds if final.seconds else 0.0,
            workers=len(self._members.able),
            recoveries=self._members.losses,
            leaves_repeated=self._rounds.repeated,
            answers_dropped=self._rounds.dropped,
            gradient_noise=_gradient_noise(final),
        )
        self._folder.write_summary(summary)
        if error is not None:
            error.summary = summary
        return Outcome(summary, parameters, error)

    def _steps(self) -> str:
        """Steps until a stop rule holds; returns it in words."""
        loop, sampling, rules = self._loop, self._problem.sampling, self._spec.stop
        pacer = Pacer(rules, sampling.steps_per_epoch)
        while True:
            if loop.epoch_is_complete:
                validation = loop.close_epoch()
                if validation is not None:
                    self._folder.append(validation)
                    self._observer.validation(validation)
            reason = stop_reason(rules, loop.state.progress, steps=loop.state.step, seconds=loop.state.seconds)
            if reason is not None:
                return reason
            self._save_if_due()
            record = loop.step()
            self._tell_incidents()
            self._folder.append(record)
            self._observer.step(record, pacer.after(record, sampling.step_rows(record.step), loop.state.seconds))

    def _tell_incidents(self) -> None:
        incidents = self._members.incidents
        for incident in incidents:
            self._folder.append(incident)
            self._observer.incident(incident)
        incidents.clear()

    def _final_losses(self) -> tuple[float, dict[str, float | None] | None]:
        """L over all training rows, and the validation loss and accuracy, at the final parameters."""
        train_loss = self._loop.evaluate("train")[0] + self._loop.regularizer()
        if not self._problem.validation_rows:
            return train_loss, None
        loss, accuracy = self._loop.evaluate("validation")
        return train_loss, {"loss": loss, "accuracy": accuracy}

    def _save_if_due(self) -> None:
        now = time.monotonic()
        if now - self._flushed_at >= _FLUSH_S:
            self._folder.flush()
            self._flushed_at = now
        # Asked at every step: an error of the last write should not wait until the next one is due.
        if self._writer.is_idle() and now - self._saved_at >= self._interval(now):
            self._folder.flush()
            self._saved_at = time.monotonic()
            self._writer.start(self._loop.state)
        self._looked_at = now

    def _interval(self, now: float) -> float:
        return checkpoint_interval(self._spec.checkpoint.every_seconds, self._writer.seconds, now - self._looked_at)

    def _save(self, state: TrainState) -> None:
        """Writes a checkpoint, its metrics having been flushed."""
        # First the metrics: a resume relies on every line before the checkpoint.
        self._folder.sync()
        save_checkpoint(self._folder.checkpoints, state, self._job, self._folder.guard)

    def _save_last(self) -> None:
        """Writes the checkpoint of the present state; whether one before it could be written does not matter any more.

        Raises:
            TakenOverError: another session has taken the folder over. Nothing is written after this.
        """
        self._writer.wait()
        self._folder.flush()
        self._save(self._loop.state)

    @contextlib.contextmanager
    def _saved_whatever_happens(self) -> Iterator[None]:
        """Checkpoints at the end of a block, also on the way out of an error that nobody foresaw; no thread outlives it."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._save_last()
            raise
        self._save_last()


def _gradient_noise(state: TrainState) -> GradientNoise:
    noise = state.noise
    scale, trace, norm = noise.noise_scale_interval, noise.trace_interval, noise.norm_squared_interval
    trace_low, trace_high = trace or (None, None)
    norm_low, norm_high = norm or (None, None)
    return GradientNoise(
        noise_trace=noise.smoothed_trace,
        gradient_norm_squared=noise.smoothed_norm_squared,
        noise_scale=noise.noise_scale,
        variance=tuple(VariancePoint(*point) for point in noise.variance_by_rows()),
        noise_scale_low=scale[0],
        noise_scale_high=scale[1],
        noise_trace_low=trace_low,
        noise_trace_high=trace_high,
        gradient_norm_squared_low=norm_low,
        gradient_norm_squared_high=norm_high,
    )
