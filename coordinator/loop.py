"""The step loop: plan, dispatch, collect, update. Knows the mathematics and the exchange port, nothing of Ray or sockets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from shardsgd.coordinator.rates import LearningRates
from shardsgd.coordinator.records import StepRecord, ValidationRecord
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.stop import Progress
from shardsgd.coordinator.update import StepUpdate, StepUpdater
from shardsgd.errors import DivergedError
from shardsgd.model.chunks import chunks
from shardsgd.model.layout import Flat
from shardsgd.model.optimizers import StateBuffers
from shardsgd.model.problem import Problem, Split
from shardsgd.model.state import Updater
from shardsgd.model.statistics import NoiseHistory, step_noise
from shardsgd.workers.exchange import EvaluationRequest, Evaluations, Exchange, GradientRequest, Gradients, WorkerId

Clock = Callable[[], float]


@dataclass(frozen=True)
class TrainState:
    """All that a run is, between two steps. Everything a checkpoint must hold, and nothing else.

    Attributes:
        step: t, updates done.
        theta: θ_t, flat. Written over by the step after the next.
        optimizer_state: the optimizer's slots, each flat like θ, and written over likewise.
        noise: gradient-noise estimates so far.
        progress: what the stop rules remember.
        seconds: wall-clock seconds in the step loop so far.
        recoveries: worker losses survived so far.
        schedule_steps: τ, where the schedule stands: Σ of the gains of the steps so far; t where rates are not scaled.
    """

    step: int
    theta: Flat
    optimizer_state: tuple[Flat, ...]
    noise: NoiseHistory
    progress: Progress
    seconds: float
    recoveries: int
    schedule_steps: float


class StepLoop:
    """Takes one step at a time over an exchange.

    Attributes:
        state: after the last complete step. An exception during a step leaves it as it was.
    """

    def __init__(
        self,
        problem: Problem,
        learning_rates: LearningRates,
        exchange: Exchange,
        rounds: Rounds,
        clock: Clock,
        state: TrainState,
    ) -> None:
        self._problem = problem
        self._learning_rates = learning_rates
        self._array_names = tuple(entry.name for entry in problem.layout.entries)
        self._update = StepUpdater(problem, exchange, rounds)
        self._exchange = exchange
        self._rounds = rounds
        self._clock = clock
        # Which of the exchange's two states is θ_t's; the other one is for θ_{t+1}.
        self._current = 0
        self.state = _moved(state, exchange.states[0])

    def step(self) -> StepRecord:
        """Computes g at θ_t and makes θ_{t+1}.

        Raises:
            DivergedError: the loss, the gradient or θ_{t+1} is not finite; `state` keeps θ_t.
            JobError: see `Rounds.run`.
        """
        started = self._clock()
        state, sampling = self.state, self._problem.sampling
        self._exchange.publish(self._current)
        replies = self._rounds.run(
            sampling.shards, lambda version, *leaves: GradientRequest(state.step, version, *leaves)
        )
        gradients = cast(Sequence[Gradients], replies)
        collected = self._clock()
        rows = sampling.step_rows(state.step)
        # From the steps before: this step's gradient is known in whole only when the update is under way.
        gain = self._learning_rates.gain(state.noise, rows)
        advance = 1.0 if gain is None else gain
        rate = advance * self._learning_rates(int(state.schedule_steps))
        loss = _exact_sum(loss for part in gradients for loss in part.losses) / rows
        if not math.isfinite(loss):
            raise self._diverged(rate, f"the loss is {loss:g}")
        updated = self._update.update(gradients, state.step, rate, self._current)
        self._check_finite(updated, loss, rows, rate)
        noise = step_noise(updated.norms, sampling.leaf_counts(state.step))
        history = state.noise.after(noise)
        scale_low, scale_high = history.noise_scale_interval
        successor = self._exchange.states[1 - self._current]
        ended = self._clock()
        loss += updated.regularizer
        after = TrainState(
            step=state.step + 1,
            theta=successor.theta,
            optimizer_state=successor.slots,
            noise=history,
            progress=state.progress.with_step(loss, rows),
            seconds=state.seconds + ended - started,
            recoveries=self._rounds.members.losses,
            schedule_steps=state.schedule_steps + advance,
        )
        # Together, and last: whatever goes wrong before, θ_t is still what it was.
        self._current, self.state = 1 - self._current, after
        return StepRecord(
            step=state.step,
            epoch=state.step // sampling.steps_per_epoch,
            loss=loss,
            learning_rate=rate,
            gradient_norm=updated.gradient_squared_norm**0.5,
            noise_trace=None if noise is None else noise.trace,
            noise_scale=history.noise_scale,
            step_seconds=ended - started,
            noise_norm_squared=None if noise is None else noise.norm_squared,
            noise_scale_low=scale_low,
            noise_scale_high=scale_high,
            gain=gain,
            layer_norms=dict(zip(self._array_names, map(math.sqrt, updated.squared_norms), strict=True)),
            **_shares(gradients, updated, collected - started, ended - collected),
        )

    @property
    def epoch_is_complete(self) -> bool:
        """Whether all steps of the open epoch are done, so that `close_epoch` is due."""
        return self.state.step == (self.state.progress.epochs + 1) * self._problem.sampling.steps_per_epoch

    def close_epoch(self) -> ValidationRecord | None:
        """Evaluates the held-out rows, if any, and moves on to the next epoch."""
        started = self._clock()
        record = None
        if self._problem.validation_rows:
            loss, accuracy = self.evaluate("validation")
            epochs = self.state.progress.epochs + 1
            record = ValidationRecord(self.state.step, epochs, loss, accuracy)
        self.state = replace(
            self.state,
            progress=self.state.progress.with_epoch(None if record is None else record.loss),
            seconds=self.state.seconds + self._clock() - started,
            recoveries=self._rounds.members.losses,
        )
        return record

    def evaluate(self, split: Split) -> tuple[float, float | None]:
        """Mean loss (without regularizer) and accuracy (None for regression) of all rows of a split at θ_t."""
        problem, step = self._problem, self.state.step
        self._exchange.publish(self._current)
        replies = self._rounds.run(
            len(chunks(problem, split)),
            lambda version, start, stop: EvaluationRequest(step, version, start, stop, split),
        )
        evaluations = cast(Sequence[Evaluations], replies)
        rows = sum(problem.split_rows(split))
        loss = _exact_sum(loss for part in evaluations for loss in part.losses) / rows
        hits = _exact_sum(hit for part in evaluations for hit in part.hits)
        return loss, hits / rows if problem.classifies else None

    def regularizer(self) -> float:
        """r(θ_t)."""
        return self._update.regularizer(self.state.theta)

    def _check_finite(self, updated: StepUpdate, loss: float, rows: int, rate: float) -> None:
        norm = updated.norms[0, self._problem.sampling.shards] ** 0.5 / rows
        if not math.isfinite(norm):
            raise self._diverged(rate, f"the loss is {loss:g}, the gradient's norm {norm:g}")
        if not updated.finite:
            raise self._diverged(rate, "the update overflows")

    def _diverged(self, rate: float, what: str) -> DivergedError:
        return DivergedError(
            f"diverged in step {self.state.step} at learning rate {rate:g}: {what}; the parameters before this step are kept. "
            "A lower optimizer.learning_rate may converge"
        )


def _exact_sum(values: Iterable[float]) -> float:
    """Σ values, rounded once, so that the order in which answers came cannot matter; ±inf or NaN where it is not finite."""
    numbers = list(values)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # beyond float64, or inf − inf
        return math.inf if all(number > -math.inf for number in numbers) else math.nan


def initial_state(problem: Problem, seed: int) -> TrainState:
    """θ_0 and everything else before the first step."""
    theta, slots = problem.network.initialize(seed, problem.layout), Updater(problem).buffers().slots
    return TrainState(0, theta, slots, NoiseHistory(), Progress(), seconds=0.0, recoveries=0, schedule_steps=0.0)


def _moved(state: TrainState, memory: StateBuffers) -> TrainState:
    """A state in an exchange's memory."""
    np.copyto(memory.theta, state.theta)
    for slot, value in zip(memory.slots, state.optimizer_state, strict=True):
        np.copyto(slot, value)
    return replace(state, theta=memory.theta, optimizer_state=memory.slots)


def _shares(gradients: Sequence[Gradients], updated: StepUpdate, round_s: float, update_s: float) -> dict[str, float]:
    """Where a step's time went, as fields of its record."""
    parts: dict[WorkerId, list[Gradients]] = {}
    for part in gradients:
        parts.setdefault(part.worker, []).append(part)
    busy = {worker: sum(part.seconds.total for part in answers) for worker, answers in parts.items()}
    slowest = parts[max(busy, key=busy.__getitem__)]
    total = round_s + update_s
    idle = [total - seconds - updated.worker_seconds.get(worker, 0.0) for worker, seconds in busy.items()]
    return {
        "gather_seconds": sum(part.seconds.gather for part in slowest),
        "leaf_seconds": sum(part.seconds.leaf for part in slowest),
        "reduce_seconds": sum(part.seconds.reduce for part in slowest),
        "exchange_seconds": round_s - max(busy.values()),
        "update_seconds": update_s,
        "idle_seconds": sum(idle) / len(idle),
    }
