"""benchmarks/ADVICE.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.advice.jobs import SHARDS, Job
from benchmarks.advice.law_fit import Fit
from benchmarks.advice.runs import LAST, NEAR, AtRate
from benchmarks.machine import setting
from benchmarks.tables import number, table


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


def head(seeds: int) -> str:
    """The report's beginning."""
    versions = setting(seeds)
    named = ", ".join(f"{name} {versions[name]}" for name in ("jaxlib", "numpy"))
    return f"""# Advice, validated by doing it

Made by `python -m benchmarks.advice`; {named}, {versions["date"]}. What it says: [docs/batch-size.md](../docs/batch-size.md).

Steps until the loss over all training rows is at most a target: median (least–most) over {seeds} seeds. The loss is looked at
once that of the last {LAST} batches is below {NEAR:g} times the target: after every step, later after every 2% more steps.
Constant rates, rows drawn with replacement, {SHARDS} shards, float32.

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
