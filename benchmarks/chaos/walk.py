"""Workers that join and leave a run as it goes: 1 → 4 → 2 → 3 → 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.chaos import checks
from benchmarks.chaos.options import Options
from benchmarks.chaos.orders import Order
from benchmarks.chaos.runs import Finished, train
from benchmarks.chaos.workloads import digits, usual
from benchmarks.progress import say

SIZES = (1, 4, 2, 3, 1)
_STEPS, _QUICK_STEPS = 300, 50
# An interrupted run has no final losses.
_END = ("steps", "parameters_sha256")


@dataclass(frozen=True)
class WalkRun:
    """A run whose workers come and go beside one with a single worker.

    Attributes:
        work: what was computed.
        steps: of each of the two.
        stages: a dict a number of workers: `workers`, `from_step`, `steps` with exactly so many, `step_seconds` (their
            median), `waited_seconds` from asking for so many until there were.
        moves: who came and went, as (step, "joined" or "left", worker).
        checks: see `FaultsRun`.
    """

    work: str
    steps: int
    stages: list[dict[str, float]]
    moves: list[tuple[int, str, int]]
    checks: dict[str, str]


def measure(options: Options) -> Iterator[WalkRun]:
    """Two models, or one if it has to be quick."""
    works = (digits(),) if options.quick else (digits(), usual(options.scratch))
    for work in works:
        say(f"{work.name}: {' → '.join(map(str, SIZES))} workers")
        spec = work.job(stop={"steps": 10**9}, workers={"count": SIZES[0], "max": max(SIZES)})
        steps = _QUICK_STEPS if options.quick else _STEPS
        run = train(Order(spec, walk=SIZES, walk_steps=steps), options.scratch)
        say(f"  and {run.summary['steps']} steps with one worker")
        alone = train(Order(work.job(stop={"steps": run.summary["steps"]}, workers={"count": 1})), options.scratch)
        yield _result(work.name, run, alone)


def _result(work: str, run: Finished, alone: Finished) -> WalkRun:
    sizes = tuple(stage["workers"] for stage in run.stages)
    return WalkRun(
        work=work,
        steps=run.summary["steps"],
        stages=run.stages,
        moves=[(each["step"], each["kind"], each["worker"]) for each in run.incidents if each["worker"] is not None],
        checks={
            "every number of workers was reached": "" if sizes == SIZES else f"{sizes} instead of {SIZES}",
            "no step lost": checks.no_step_lost(run.step_lines, alone.summary["steps"]),
            "same parameters, bit for bit": checks.same_end(run.summary, alone.summary, _END),
            "same loss, gradient norm and noise in every step": checks.same_steps(run.step_lines, alone.step_lines),
            "nobody was lost": "" if run.summary["recoveries"] == 0 else f"{run.summary['recoveries']} were",
            "metrics.jsonl has every incident": checks.in_the_book(run),
            "no process, folder, socket or shared memory left": checks.nothing_left(run),
        },
    )
