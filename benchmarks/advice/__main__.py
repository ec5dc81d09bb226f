"""Advice validated by doing it: `python -m benchmarks.advice [--only NAME,…] [--quick]`. Writes benchmarks/ADVICE.md.

For each job the learning rate is tuned at one batch size; the noise scale measured there and the advice's formula then give
the rate for every other one, around which others are tried. Counted are the steps until the loss over all training rows is at
most a target: the median over seeds, which choose θ_0 and the rows of each step. The law S_min (1 + B_crit/B) is fitted to it.
Steps are a function of the seeds alone: the machine's load does not matter.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from benchmarks.advice.jobs import JOBS, SIZES, Job
from benchmarks.advice.law_fit import fit
from benchmarks.advice.report import AtSize, head, section
from benchmarks.advice.runs import AtRate, at_rate
from benchmarks.progress import say
from shardsgd.coordinator.advice.law import progress_ratio
from shardsgd.workers.compute import configure_jax
from shardsgd.workers.environment import WORKER_ENVIRONMENT

OUT = Path(__file__).parents[1] / "ADVICE.md"
SEEDS, QUICK_SEEDS = 7, 3
# Rates around the advised one, as powers of √2.
AROUND = range(-3, 4)
# Rates with which so many times the steps of the advised one do not suffice are not followed further.
_PATIENCE = 3


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


if __name__ == "__main__":
    sys.exit(main())
