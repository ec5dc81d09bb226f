"""The spec's optimizer, schedule and regularizer as the compiled programs that the step loop calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import optax

from shardsgd.model import optimizers, schedules
from shardsgd.model.layout import Flat, Layout
from shardsgd.model.update import Updated, regularizer_program, update_program
from shardsgd.spec import JobSpec, Optimizer, Schedule


class Updater:
    """Applies updates. Pure: states are passed in and handed back."""

    def __init__(self, spec: JobSpec, layout: Layout) -> None:
        self._optimizer = _optimizer(spec.optimizer)
        self._schedule = _schedule(spec.schedule)
        self._initial_rate = spec.optimizer.learning_rate
        l1, l2 = spec.objective.l1, spec.objective.l2
        self._update = update_program(layout, self._optimizer, l1=l1, l2=l2)
        self._regularizer = regularizer_program(layout, l1=l1, l2=l2) if l1 or l2 else None

    def learning_rate(self, step: int) -> float:
        """lr(t)."""
        return self._initial_rate * self._schedule(step)

    def initial_state(self, theta: Flat) -> Any:
        """The optimizer's state before the first step."""
        with _on_the_cpu():
            return self._optimizer.init(theta)

    def state_structure(self, theta: Flat) -> Any:
        """The tree structure of the optimizer's state, without computing anything."""
        with jax.enable_x64(True):
            return jax.tree.structure(jax.eval_shape(self._optimizer.init, theta))

    def update(self, theta: Flat, state: Any, gradient_sum: Flat, rows: int, rate: float) -> Updated:
        """θ_{t+1} and what goes with it, as `model.update.update_program` defines it."""
        with _on_the_cpu():
            return self._update(theta, state, gradient_sum, float(rows), rate)

    def regularizer(self, theta: Flat) -> float:
        """r(θ)."""
        if self._regularizer is None:
            return 0.0
        with _on_the_cpu():
            return float(self._regularizer(theta))


@contextmanager
def _on_the_cpu() -> Iterator[None]:
    """The update's jax settings, for this thread and this call only: the process may belong to a user with other plans."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def _optimizer(spec: Optimizer) -> optax.GradientTransformationExtraArgs:
    return optimizers.momentum(spec.momentum) if spec.kind == "momentum" else optimizers.sgd()


def _schedule(spec: Schedule) -> schedules.Schedule:
    """The schedule of a validated spec, in which the parameters of its kind are set."""
    match spec:
        case Schedule(kind="constant"):
            return schedules.constant()
        case Schedule(kind="polynomial", power=float(power)):
            return schedules.polynomial(power)
        case Schedule(kind="step", factor=float(factor), every=int(every)):
            return schedules.step(factor, every)
        case Schedule(kind="exponential", rate=float(rate)):
            return schedules.exponential(rate)
    raise AssertionError(f"a schedule that validation let through: {spec}")
