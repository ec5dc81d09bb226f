"""Runs of a job in this process, counted in steps to its target."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.advice.jobs import JOBS, SIZES, Job
from benchmarks.in_process import DatasetRows, OneWorkerExchange
from shardsgd.coordinator.data import Dataset, load_dataset
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.staffing import Limits
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import DivergedError
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.programs import Programs

# The loss over all rows is looked at once the mean loss of the last steps' batches is below so many times the target: after
# every step at first, then after every 2% more steps.
NEAR, LAST = 2.0, 8
_LOOK = 1.02
_PARTS = 10


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        steps: until the target; None: it diverged, or took too many.
        noise: [parts of the run, 2], sums over the steps of a part of their unbiased tr Σ and |G|².
    """

    steps: int | None
    noise: list[tuple[float, float]]


@dataclass(frozen=True)
class AtRate:
    """Runs at one rate, one a seed.

    Attributes:
        rate: lr, constant.
        steps: of each run that reached the target.
        failed: how many did not.
        noise: of all runs together, as in `Run`.
    """

    rate: float
    steps: list[int]
    failed: int
    noise: list[tuple[float, float]] = field(repr=False)

    @property
    def median(self) -> float:
        """Over all runs, one that failed being the longest."""
        return statistics.median([*self.steps, *([math.inf] * self.failed)])

    @property
    def noise_scales(self) -> list[float]:
        """Tr Σ/|G|² of each part of the run."""
        return [trace / norm if norm > 0 else math.inf for trace, norm in self.noise]


def at_rate(job: Job, batch: int, rate: float, seeds: Sequence[int], most: int) -> AtRate:
    """Runs with all seeds."""
    runs = []
    for seed in seeds:
        runs.append(run(job, batch, rate, seed, most))
        done = sorted(each.steps for each in runs if each.steps is not None)
        if len(runs) - len(done) > len(seeds) / 2:
            break  # the median is inf whatever the others do
    together = np.sum([each.noise for each in runs], axis=0).tolist()
    reached = [each.steps for each in runs if each.steps is not None]
    return AtRate(rate, reached, len(seeds) - len(reached), together)


def run(job: Job, batch: int, rate: float, seed: int, most: int) -> Run:
    """Trains until the loss over all training rows is at most the target."""
    spec, dataset = job.spec(batch, rate, seed), _dataset(job)
    problem = make_problem(spec, dataset)
    computer = LeafComputer(problem, DatasetRows(dataset), programs=_programs(job.name, batch))
    exchange = OneWorkerExchange(problem, computer)
    members = Members(exchange, Limits(most=1), time.monotonic, target=1, wanted=lambda: None)
    rounds = Rounds(exchange, members, time.monotonic)
    loop = StepLoop(problem, learning_rates(spec), exchange, rounds, time.perf_counter, initial_state(problem, seed))
    noise: list[tuple[float, float]] = []
    losses: deque[float] = deque(maxlen=LAST)
    look, steps = 1, None
    try:
        while steps is None and loop.state.step < most:
            record = loop.step()
            noise.append((record.noise_trace or 0.0, record.noise_norm_squared or 0.0))
            losses.append(record.loss)
            if loop.state.step >= look and statistics.fmean(losses) <= NEAR * job.target:
                look = max(loop.state.step + 1, math.floor(loop.state.step * _LOOK))
                loss, _ = loop.evaluate("train")
                if loss <= job.target:
                    steps = loop.state.step
    except DivergedError:
        pass
    parts = np.array_split(np.array(noise or [(0.0, 0.0)]), _PARTS)
    return Run(steps, [(float(part[:, 0].sum()), float(part[:, 1].sum())) for part in parts])


# One set of rows for all seeds: they would have targets of their own.
@functools.cache
def _dataset_of(name: str) -> Dataset:
    job = next(job for job in JOBS if job.name == name)
    return load_dataset(job.spec(SIZES[0], 1.0, 0))


def _dataset(job: Job) -> Dataset:
    return _dataset_of(job.name)


@functools.cache
def _programs(name: str, batch: int) -> Programs:
    del name, batch
    return Programs()
