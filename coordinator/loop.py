"""The step loop: plan, dispatch, collect, update. Knows the mathematics and the exchange port, nothing of Ray or sockets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from shardsgd.coordinator.records import StepRecord, ValidationRecord
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.stop import Progress
from shardsgd.coordinator.updater import Updater
from shardsgd.errors import DivergedError
from shardsgd.model.evaluation import chunks
from shardsgd.model.layout import Flat
from shardsgd.model.losses import ROW_HITS
from shardsgd.model.problem import Problem, Split
from shardsgd.model.statistics import NoiseHistory, step_noise
from shardsgd.model.tree import GradientSums, Node, reduce_node
from shardsgd.workers.exchange import EvaluationRequest, Evaluations, Exchange, GradientRequest, Gradients

Clock = Callable[[], float]


@dataclass(frozen=True)
class TrainState:
    """All that a run is, between two steps. Everything a checkpoint must hold, and nothing else.

    Attributes:
        step: t, updates done.
        theta: θ_t, flat, never changed in place.
        optimizer_state: pytree of arrays.
        noise: gradient-noise estimates so far.
        progress: what the stop rules remember.
        seconds: wall-clock seconds in the step loop so far.
        recoveries: worker losses survived so far.
    """

    step: int
    theta: Flat
    optimizer_state: Any
    noise: NoiseHistory
    progress: Progress
    seconds: float
    recoveries: int


class StepLoop:
    """Takes one step at a time over an exchange.

    Attributes:
        state: after the last complete step. An exception during a step leaves it as it was.
    """

    def __init__(
        self, problem: Problem, updater: Updater, exchange: Exchange, rounds: Rounds, clock: Clock, state: TrainState
    ) -> None:
        self._problem = problem
        self._updater = updater
        self._exchange = exchange
        self._rounds = rounds
        self._clock = clock
        self.state = state

    def step(self) -> StepRecord:
        """Computes g at θ_t and makes θ_{t+1}.

        Raises:
            DivergedError: the loss, the gradient or θ_{t+1} is not finite; `state` keeps θ_t.
            JobError: see `Rounds.run`.
        """
        started = self._clock()
        state, sampling = self.state, self._problem.sampling
        self._exchange.publish(state.theta)
        replies = self._rounds.run(
            sampling.shards, lambda version, *leaves: GradientRequest(state.step, version, *leaves)
        )
        gradients = cast(Sequence[Gradients], replies)
        gradient_sum, norms = self._finish_tree(gradients)
        rows = sampling.step_rows(state.step)
        loss = _exact_sum(loss for part in gradients for loss in part.losses) / rows + self.regularizer()
        rate = self._updater.learning_rate(state.step)
        if not math.isfinite(loss) or not math.isfinite(norms[0, sampling.shards]):
            raise self._diverged(
                rate, f"the loss is {loss:g}, the gradient's norm {norms[0, sampling.shards] ** 0.5 / rows:g}"
            )
        updated = self._updater.update(state.theta, state.optimizer_state, gradient_sum, rows, rate)
        if not updated.finite:
            raise self._diverged(rate, "the update overflows")
        noise = step_noise(norms, [sampling.leaf_count(shard, state.step) for shard in range(sampling.shards)])
        elapsed = self._clock() - started
        self.state = TrainState(
            step=state.step + 1,
            theta=np.asarray(updated.theta),
            optimizer_state=updated.optimizer_state,
            noise=state.noise.after(noise),
            progress=state.progress.with_step(loss, rows),
            seconds=state.seconds + elapsed,
            recoveries=self._rounds.recoveries,
        )
        return StepRecord(
            step=state.step,
            epoch=state.step // sampling.steps_per_epoch,
            loss=loss,
            learning_rate=rate,
            gradient_norm=float(updated.gradient_squared_norm) ** 0.5,
            noise_trace=None if noise is None else noise.trace,
            noise_scale=self.state.noise.noise_scale,
            step_seconds=elapsed,
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
            recoveries=self._rounds.recoveries,
        )
        return record

    def evaluate(self, split: Split) -> tuple[float, float | None]:
        """Mean loss (without regularizer) and accuracy (None for regression) of all rows of a split at θ_t."""
        problem, step = self._problem, self.state.step
        self._exchange.publish(self.state.theta)
        replies = self._rounds.run(
            len(chunks(problem, split)),
            lambda version, start, stop: EvaluationRequest(step, version, start, stop, split),
        )
        evaluations = cast(Sequence[Evaluations], replies)
        rows = sum(problem.split_rows(split))
        loss = _exact_sum(loss for part in evaluations for loss in part.losses) / rows
        hits = _exact_sum(hit for part in evaluations for hit in part.hits)
        return loss, hits / rows if problem.loss in ROW_HITS else None

    def regularizer(self) -> float:
        """r(θ_t)."""
        return self._updater.regularizer(self.state.theta)

    def _finish_tree(self, parts: Sequence[Gradients]) -> tuple[Flat, dict[Node, float]]:
        """The root's sum, added along the tree from the workers' subtrees, and the squared norm of every node."""
        known = {node: total for part in parts for node, total in part.sums.items()}
        tree = GradientSums({node: norm for part in parts for node, norm in part.norms.items()})
        root = reduce_node((0, self._problem.sampling.shards), known.get, tree.add)
        return root, tree.norms

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


def initial_state(problem: Problem, updater: Updater, seed: int) -> TrainState:
    """θ_0 and everything else before the first step."""
    theta = problem.network.initialize(seed, problem.layout)
    return TrainState(0, theta, updater.initial_state(theta), NoiseHistory(), Progress(), seconds=0.0, recoveries=0)
