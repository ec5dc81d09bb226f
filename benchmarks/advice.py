"""Advice validated by doing it: `python -m benchmarks.advice [--only NAME,…] [--quick]`. Writes benchmarks/ADVICE.md.

For each job the learning rate is tuned at one batch size; the noise scale measured there and the advice's formula then give
the rate for every other one, around which others are tried. Counted are the steps until the loss over all training rows is at
most a target: the median over seeds, which choose θ_0 and the rows of each step. The law S_min (1 + B_crit/B) is fitted to it.
Steps are a function of the seeds alone: the machine's load does not matter.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.in_process import OneWorkerExchange
from benchmarks.law_fit import Fit, fit
from benchmarks.machine import setting
from benchmarks.progress import say
from benchmarks.tables import number, table
from shardsgd.coordinator.advice.law import progress_ratio
from shardsgd.coordinator.data import Dataset, load_dataset
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.staffing import Limits
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import DivergedError
from shardsgd.spec import JobSpec
from shardsgd.workers.compute import configure_jax
from shardsgd.workers.environment import WORKER_ENVIRONMENT
from shardsgd.workers.programs import Programs

OUT = Path(__file__).parent / "ADVICE.md"
SIZES = (16, 32, 64, 128, 256, 512, 1024)
SEEDS, QUICK_SEEDS = 7, 3
# Rates around the advised one, as powers of √2.
AROUND = range(-3, 4)
_SHARDS = 4
_PARTS = 10
# The loss over all rows is looked at once the mean loss of the last steps' batches is below so many times the target: after
# every step at first, then after every 2% more steps.
_NEAR, _LAST = 2.0, 8
_LOOK = 1.02
# Rates with which so many times the steps of the advised one do not suffice are not followed further.
_PATIENCE = 3


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        name: in the report.
        about: in words.
        sections: of its spec, without the batch and the rate.
        target: loss over all training rows, at most.
        present: B₀, the batch size at which the rate is tuned.
        rates: tried there.
        most_steps: of a run that does not reach the target.
    """

    name: str
    about: str
    sections: dict[str, Any]
    target: float
    present: int
    rates: tuple[float, ...]
    most_steps: int = 1500

    def spec(self, batch: int, rate: float, seed: int) -> JobSpec:
        """Of a run."""
        optimizer = {**self.sections.get("optimizer", {}), "learning_rate": rate}
        draws = {"size": batch, "shards": _SHARDS, "sampling": "replacement"}
        return JobSpec(**{**self.sections, "optimizer": optimizer, "batch": draws, "seed": seed}).resolved()


def _rates(middle: float, doublings: int) -> tuple[float, ...]:
    return tuple(middle * 2 ** (k / 2) for k in range(-2 * doublings, 2 * doublings + 1))


JOBS = (
    Job(
        "digits",
        "1,438 training rows of 64 features, MLP 64-32-10 with ReLU, softmax cross-entropy, SGD",
        {"data": {"source": "digits"}, "model": {"hidden": [32]}},
        target=0.02,
        present=128,
        rates=_rates(1.0, 2),
    ),
    Job(
        "digits, momentum",
        "the same with momentum 0.9",
        {
            "data": {"source": "digits"},
            "model": {"hidden": [32]},
            "optimizer": {"kind": "momentum", "momentum": 0.9},
        },
        target=0.02,
        present=128,
        rates=_rates(0.1, 2),
    ),
    Job(
        "breast_cancer",
        "455 training rows of 30 features, linear, logistic loss, SGD",
        {"data": {"source": "breast_cancer"}, "model": {"kind": "linear"}, "objective": {"loss": "logistic"}},
        target=0.06,
        present=128,
        rates=_rates(4.0, 2),
    ),
)


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


@dataclass(frozen=True)
class AtSize:
    """What was found at one batch size: at the advised rate, and at all rates around it."""

    batch: int
    advised: AtRate
    around: list[AtRate]

    @property
    def best(self) -> AtRate:
        """The rate with the fewest steps."""
        return min(self.around, key=lambda each: each.median)


def main() -> int:
    """Runs the jobs; the exit code is 1 where steps are not within a factor 1.5 of the law."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advice", description=__doc__)
    names = [job.name for job in JOBS]
    parser.add_argument("--only", help=f"of {', '.join(names)}; separated by semicolons")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few seeds and rates; keeps no file")
    arguments = parser.parse_args()
    seeds, around = (QUICK_SEEDS, (-2, 0, 2)) if arguments.quick else (SEEDS, AROUND)
    only = arguments.only.split(";") if arguments.only else names
    os.environ.update(WORKER_ENVIRONMENT)
    sections, worst = [], 1.0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, context, initializer=configure_jax) as pool:
        for job in (job for job in JOBS if job.name in only):
            started = time.monotonic()
            text, ratio = measured(job, pool, range(seeds), around)
            worst = max(worst, ratio)
            sections.append(text)
            say(f"{job.name}: {time.monotonic() - started:.0f} s\n{text}")
    page = "\n\n".join([head(seeds), *sections]) + "\n"
    if arguments.quick or arguments.only:
        sys.stdout.write(page)
    else:
        OUT.write_text(page)
    return int(worst > 1.5)


def measured(job: Job, pool: ProcessPoolExecutor, seeds: Sequence[int], around: Sequence[int]) -> tuple[str, float]:
    """A job's section of the report, and the largest ratio to the fitted law."""
    tried = [pool.submit(at_rate, job, job.present, rate, seeds, job.most_steps) for rate in job.rates]
    tuned = min((each.result() for each in tried), key=lambda each: each.median)
    scale = mean_noise_scale(tuned.noise_scales, job.present)
    say(f"{job.name}: tuned rate {tuned.rate:.4g}, {tuned.median:g} steps, noise scale {scale:.0f}")
    rates = {batch: tuned.rate * progress_ratio(batch, job.present, scale) for batch in SIZES}
    advised = {batch: pool.submit(at_rate, job, batch, rate, seeds, job.most_steps) for batch, rate in rates.items()}
    others = {
        batch: [
            pool.submit(at_rate, job, batch, rates[batch] * 2 ** (k / 2), seeds, _most(job, advised, batch))
            for k in around
            if k != 0
        ]
        for batch in SIZES
    }
    sizes = []
    for batch in SIZES:
        at_it = advised[batch].result()
        sizes.append(AtSize(batch, at_it, [at_it, *(each.result() for each in others[batch])]))
        say(f"{job.name}: B = {batch}: {at_it.median:g} steps, best {sizes[-1].best.median:g}")
    law = fit(list(SIZES), [each.best.median for each in sizes])
    ratios = [each.best.median / law.steps(each.batch) for each in sizes]
    return section(job, tuned, scale, sizes, law), max(max(each, 1 / each) for each in ratios)


def mean_noise_scale(scales: Sequence[float], batch: int) -> float:
    """The B_s of a run whose noise scale changes.

    S = ∫ (1 + B_s/B) ds over the noiseless steps s, so B_crit is the mean of B_s over s; and a step at `batch` is 1/(1 + B_s/B)
    noiseless ones.

    Args:
        scales: of parts of a run with equally many steps, in rows; inf where |G|² is not above 0.
        batch: of the run.
    """
    noiseless = [batch / (batch + each) for each in scales]
    with_noise = [batch if math.isinf(each) else each * share for each, share in zip(scales, noiseless, strict=True)]
    return sum(with_noise) / sum(noiseless)


def _most(job: Job, advised: dict[int, Future[AtRate]], batch: int) -> int:
    """Steps after which a rate cannot be the best any more: what a smaller batch needed a larger one does not exceed by far."""
    fewest = min(future.result().median for size, future in advised.items() if size <= batch)
    return int(min(job.most_steps, _PATIENCE * fewest))


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
    exchange = OneWorkerExchange(problem, dataset, _programs(job.name, batch))
    members = Members(exchange, Limits(most=1), time.monotonic, target=1, wanted=lambda: None)
    rounds = Rounds(exchange, members, time.monotonic)
    loop = StepLoop(problem, learning_rates(spec), exchange, rounds, time.perf_counter, initial_state(problem, seed))
    noise: list[tuple[float, float]] = []
    losses: deque[float] = deque(maxlen=_LAST)
    look, steps = 1, None
    try:
        while steps is None and loop.state.step < most:
            record = loop.step()
            noise.append((record.noise_trace or 0.0, record.noise_norm_squared or 0.0))
            losses.append(record.loss)
            if loop.state.step >= look and statistics.fmean(losses) <= _NEAR * job.target:
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


def head(seeds: int) -> str:
    """The report's beginning."""
    versions = setting(seeds)
    named = ", ".join(f"{name} {versions[name]}" for name in ("jaxlib", "numpy"))
    return f"""# Advice, validated by doing it

Made by `python -m benchmarks.advice`; {named}, {versions["date"]}. What it says: [docs/batch-size.md](../docs/batch-size.md).

Steps until the loss over all training rows is at most a target: median (least–most) over {seeds} seeds. The loss is looked at
once that of the last {_LAST} batches is below {_NEAR:g} times the target: after every step, later after every 2% more steps.
Constant rates, rows drawn with replacement, {_SHARDS} shards, float32.

The rate is tuned at B₀, on a grid of factors √2. With B_s, measured in these runs, the advice gives the rate for every other B:
lr(B) = lr(B₀)·(1 + B_s/B₀)/(1 + B_s/B). The tuned rate is the best of seven around it, from 0.35 to 2.8 times it, in factors √2
again. The law S_min (1 + B_crit/B) is fitted to the steps at tuned rates, by least squares in the logarithm.

A batch of more rows than there are (512 and 1,024 of breast_cancer's 455) is well-defined when rows are drawn with replacement,
and is measured here; a job's spec refuses it."""


def section(job: Job, tuned: AtRate, scale: float, sizes: list[AtSize], law: Fit) -> str:
    """A job's part of the report."""
    rows = [
        [
            f"{each.batch:,}",
            f"{each.advised.rate:.3g}",
            _steps(each.advised),
            f"{each.best.rate / each.advised.rate:.2f}",
            _steps(each.best),
            "–" if math.isinf(each.advised.median) else number(each.advised.median / each.best.median),
            number(law.steps(each.batch)),
            number(each.best.median / law.steps(each.batch)),
        ]
        for each in sizes
    ]
    names = ["B", "advised rate", "steps", "tuned/advised", "steps, tuned", "advised/tuned steps", "law", "tuned/law"]
    scales = ", ".join("∞" if math.isinf(each) else number(each) for each in tuned.noise_scales)
    return f"""## {job.name}
{job.about}; target {job.target}; B₀ = {job.present}, rate there {tuned.rate:.3g}.

{table(names, rows)}

- Fitted: S_min = {number(law.s_min)} steps, **B_crit = {number(law.b_crit)} rows**.
- Measured at B₀: **B_s = {number(scale)} rows**, the mean over noiseless steps; in the tenths of the runs: {scales}.
- B_s / B_crit = {number(scale / law.b_crit)}."""


def _steps(each: AtRate) -> str:
    if math.isinf(each.median):
        return "not reached"
    return f"{number(each.median)} ({number(min(each.steps))}–{number(max(each.steps)) if not each.failed else '∞'})"


if __name__ == "__main__":
    sys.exit(main())
