"""What the live noise estimate costs: `python -m benchmarks.noise_cost [--batch B] [--shards V] [--rounds N] [--quick]`.

Whole steps of one worker's work in one process with one XLA thread: leaves, their sums, the update, the statistics. Two step
loops take turns. One is as it ships. The other takes no norms of leaves and of their sums, and estimates nothing: what it does
beside is what every step must do. (It does not take the norm of the whole gradient either where that comes with the sum, so the
cost is rather over- than underestimated.) The ratio is formed within a round, so that what slows the machine down slows both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

# Before jax is imported, as for workers.
os.environ |= {"NPROC": "1", "PJRT_NPROC": "1", "JAX_PLATFORMS": "cpu"}

import numpy as np

from benchmarks.in_process import OneWorkerExchange
from benchmarks.progress import say
from benchmarks.tables import number, table
from benchmarks.work import CLASSES, FEATURES, HIDDEN, LEARNING_RATE, MOMENTUM, ROWS
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.staffing import Limits
from shardsgd.model.layout import Flat
from shardsgd.model.networks import Network
from shardsgd.model.optimizers import Momentum
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling
from shardsgd.model.statistics import NoiseHistory, step_noise
from shardsgd.model.tree import subtree
from shardsgd.spec import JobSpec
from shardsgd.workers.compute import LeafComputer, configure_jax, keep_freed_memory

TARGET = 0.03


class Rows:
    """Random rows, dealt to the shards."""

    def __init__(self, shards: int) -> None:
        random = np.random.default_rng(0)
        x = random.random((ROWS, FEATURES), dtype=np.float32)
        y = random.integers(0, CLASSES, ROWS).astype(np.int32)
        self._dealt = [(x[shard::shards].copy(), y[shard::shards].copy()) for shard in range(shards)]

    def shard(self, number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Rows of a shard."""
        return self._dealt[number]

    def validation(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """None."""
        x, y = self._dealt[0]
        return x[:0], y[:0]


# Plain functions: a call of a Mock takes longer than what it stands for.
def _no_norm(block: Flat) -> float:
    del block
    return 0.0


def _no_noise(norms: object, counts: object) -> None:
    del norms, counts


@contextmanager
def without_estimate() -> Iterator[None]:
    """Steps within it take no norms of sums and estimate nothing."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("shardsgd.model.sums.block_squared_norm", _no_norm))
        stack.enter_context(mock.patch("shardsgd.coordinator.loop.step_noise", _no_noise))
        yield


def step_loop(batch: int, shards: int) -> StepLoop:
    """The work of the other benchmarks, as a step loop in one process."""
    spec = JobSpec(
        data={"source": "digits"},  # only the rates are taken from it
        optimizer={"kind": "momentum", "momentum": MOMENTUM, "learning_rate": LEARNING_RATE},
    )
    sampling = Sampling(0, ROWS, batch, shards, "shuffle")
    network = Network(FEATURES, HIDDEN, CLASSES, "relu")
    problem = Problem(network, "softmax_cross_entropy", sampling, "float32", 0, optimizer=Momentum(MOMENTUM))
    exchange = OneWorkerExchange(problem, LeafComputer(problem, Rows(shards)))
    members = Members(exchange, Limits(most=1), time.monotonic, target=1)
    rounds = Rounds(exchange, members, time.monotonic)
    return StepLoop(problem, learning_rates(spec), exchange, rounds, time.perf_counter, initial_state(problem, 0))


def seconds_of(work: Callable[[], object], repetitions: int) -> float:
    """Of one repetition."""
    started = time.perf_counter()
    for _ in range(repetitions):
        work()
    return (time.perf_counter() - started) / repetitions


def statistics_seconds(shards: int) -> float:
    """What the coordinator alone spends on the estimates of a step and their smoothing."""
    norms = {node: 1.0 + node[1] - node[0] for node in subtree((0, shards))}
    history = NoiseHistory()
    for number_ in range(20):
        history = history.after(step_noise(norms | {(0, shards): 2.0 + number_}, [8] * shards))

    def estimate() -> None:
        after = history.after(step_noise(norms, [8] * shards))
        assert after.noise_scale_interval[0] != -1

    return min(seconds_of(estimate, 500) for _ in range(5))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024, help="rows of a step")
    parser.add_argument("--shards", type=int, default=8, help="leaves of a step")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    options = parser.parse_args()
    rounds, turn_s = (2, 0.05) if options.quick else (options.rounds, 1.0)
    configure_jax()
    keep_freed_memory()
    loops = {name: step_loop(options.batch, options.shards) for name in ("with", "without")}

    def turn(name: str, steps: int) -> float:
        if name == "with":
            return seconds_of(loops[name].step, steps)
        with without_estimate():
            return seconds_of(loops[name].step, steps)

    for name in loops:
        turn(name, 3)
    steps = max(2, round(turn_s / turn("with", 2)))
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number_ in range(rounds):
        for name in sorted(loops, reverse=bool(number_ % 2)):
            seconds[name].append(turn(name, steps))
        say(f"round {number_ + 1}/{rounds}: " + "  ".join(f"{name} {1e3 * seconds[name][-1]:.3g} ms" for name in loops))
    costs = [a / b - 1 for a, b in zip(seconds["with"], seconds["without"], strict=True)]
    alone = statistics_seconds(options.shards)
    step = statistics.median(seconds["with"])
    print(f"B = {options.batch}, V = {options.shards}, {steps} steps a turn, {rounds} rounds\n")
    lines = [
        ["a step, ms", number(1e3 * step)],
        ["a step without the estimate, ms", number(1e3 * statistics.median(seconds["without"]))],
        ["cost, share of a step: median", f"{100 * statistics.median(costs):.2f}%"],
        ["cost: least and most of the rounds", f"{100 * min(costs):.2f}% to {100 * max(costs):.2f}%"],
        ["of it in the coordinator, µs a step", number(1e6 * alone)],
        ["the same as a share of a step that two workers halve", f"{100 * 2 * alone / step:.2f}%"],
    ]
    print(table(["what", "figure"], lines))
    met = statistics.median(costs) <= TARGET
    print(f"\ntarget: at most {100 * TARGET:.0f}% of a step: {'met' if met else 'NOT met'}")
    sys.exit(0 if met or options.quick else 1)


if __name__ == "__main__":
    main()
