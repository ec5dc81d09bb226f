"""One session of a run: its steps, what happens between them, and how it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from shardsgd.coordinator.checkpoint import Origin, save_checkpoint
from shardsgd.coordinator.loop import StepLoop, TrainState
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.pacing import Pacer
from shardsgd.coordinator.records import GradientNoise, Observer, Summary, VariancePoint
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
        self, spec: JobSpec, problem: Problem, loop: StepLoop, folder: RunFolder, origin: Origin, observer: Observer
    ) -> None:
        self._spec = spec
        self._problem = problem
        self._loop = loop
        self._folder = folder
        self._origin = origin
        self._observer = observer
        self._saved_at = self._flushed_at = time.monotonic()

    def run(self, workers: Callable[[], int]) -> Outcome:
        """Steps until a stop rule holds, the user interrupts or the job fails; leaves a checkpoint, parameters and a summary.

        Args:
            workers: how many compute now.
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
            workers=workers(),
            recoveries=final.recoveries,
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
            self._folder.append(record)
            self._observer.step(record, pacer.after(record, sampling.step_rows(record.step), loop.state.seconds))

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
        if now - self._saved_at >= self._spec.checkpoint.every_seconds:
            self._save()
            self._saved_at = time.monotonic()

    def _save(self) -> None:
        # First the metrics, then the checkpoint: a resume relies on every line before it.
        self._folder.flush(durable=True)
        save_checkpoint(self._folder.checkpoints, self._loop.state, self._problem.layout, self._origin)

    @contextlib.contextmanager
    def _saved_whatever_happens(self) -> Iterator[None]:
        """Checkpoints at the end of a block, also on the way out of an error that nobody foresaw."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._save()
            raise
        self._save()


def _gradient_noise(state: TrainState) -> GradientNoise:
    noise = state.noise
    points = tuple(VariancePoint(*point) for point in noise.variance_by_rows())
    return GradientNoise(noise.smoothed_trace, noise.smoothed_norm_squared, noise.noise_scale, points)
