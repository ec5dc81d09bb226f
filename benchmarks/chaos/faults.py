"""A thousand faults of all kinds in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.chaos import checks, delays, punctual, schedule
from benchmarks.chaos.delays import Delays
from benchmarks.chaos.options import Options
from benchmarks.chaos.orders import Files, Order
from benchmarks.chaos.runs import Finished, train
from benchmarks.chaos.steplog import steps_done, steps_per_second
from benchmarks.chaos.workloads import Workload, digits, large
from benchmarks.progress import say
from shardsgd.workers.faults import Fault, fired

_HANG_SECONDS = 1.0
# After the last fault is due: for replacements that faults are still to come for.
_TAIL_STEPS = 100
_QUICK_FAULTS = 20


@dataclass(frozen=True)
class FaultsRun:
    """A run with faults beside the same without.

    Attributes:
        work: what was computed.
        steps: of each of the two.
        disturbed_steps: until the last fault was due.
        declared: faults, by kind.
        fired: those that happened, by kind.
        by_point: those that happened, by where.
        in_their_step: of these, in the very step that they were declared for.
        incidents: in the run's book, by kind.
        starts: of workers, the first ones included.
        repeated_leaves: leaves (and blocks and chunks, the book does not tell them apart) asked for more than once.
        leaves: of all steps.
        delays: how long it took until …, by what and by kind of fault.
        rate: steps a second until the last fault was due.
        rate_alone: the same in the run without faults.
        checks: what was wrong, by what was looked at; empty where nothing was.
    """

    work: str
    steps: int
    disturbed_steps: int
    declared: dict[str, int]
    fired: dict[str, int]
    by_point: dict[str, int]
    in_their_step: int
    incidents: dict[str, int]
    starts: int
    repeated_leaves: int
    leaves: int
    delays: dict[str, dict[str, Delays]]
    rate: float
    rate_alone: float
    checks: dict[str, str]


def measure(options: Options) -> Iterator[FaultsRun]:
    """A run for each of the two workloads."""
    count = _QUICK_FAULTS if options.quick else options.faults
    for work in (digits(), large(options.scratch)):
        yield _measure(work, count, options)


def _measure(work: Workload, count: int, options: Options) -> FaultsRun:
    declared = schedule.faults(count, seed=options.seed, steps_per_epoch=work.steps_per_epoch, updates=work.updates)
    last = declared[-1].at
    steps = last + 1 + _TAIL_STEPS
    spec = work.job(stop={"steps": steps}, workers={"count": schedule.WORKERS, "hang_seconds": _HANG_SECONDS})
    say(f"{work.name}: {steps} steps alone, then with {count} faults")
    alone = train(Order(spec), options.scratch)

    def progress(files: Files) -> str:
        happened = len(fired(files.plan(declared)))
        return f"step {steps_done(files.steps)} of {steps}, {happened} of {count} faults"

    run = train(Order(spec, tuple(declared), linger_from=last + 1), options.scratch, progress)
    return _result(work, declared, run, alone, last)


def _result(work: Workload, declared: list[Fault], run: Finished, alone: Finished, last: int) -> FaultsRun:
    plan = run.files.plan(declared)
    ledger, happened = plan.ledger, fired(plan)
    steps = last + 1 + _TAIL_STEPS
    return FaultsRun(
        work=work.name,
        steps=steps,
        disturbed_steps=last + 1,
        declared=_counted(fault.kind for fault in declared),
        fired=_counted(each.fault.kind for each in happened),
        by_point=_counted(_where(each.fault) for each in happened),
        in_their_step=punctual.in_their_step(happened),
        incidents=_counted(each["kind"] for each in run.incidents),
        starts=len(list(ledger.glob("start-*"))),
        repeated_leaves=sum(each["leaves"] for each in run.incidents),
        leaves=steps * work.spec["batch"]["shards"],
        delays={
            "noticed": delays.until_noticed(declared, ledger, run.incidents),
            "recovered": delays.until_recovered(happened, run.incidents),
            "replaced": {"all": delays.until_replaced(run.incidents)},
        },
        rate=steps_per_second(run.steps[: last + 1]),
        rate_alone=steps_per_second(alone.steps[: last + 1]),
        checks={
            "the job succeeded": "" if run.summary["state"] == "SUCCEEDED" else run.summary["reason"],
            "every fault happened exactly once": punctual.fired_once(declared, happened),
            "in its step or at the first occasion after": punctual.at_first_occasion(happened, work.steps_per_epoch),
            "no step lost": checks.no_step_lost(run.step_lines, steps),
            "same parameters and final losses, bit for bit": checks.same_end(run.summary, alone.summary),
            "same loss, gradient norm and noise in every step": checks.same_steps(run.step_lines, alone.step_lines),
            "metrics.jsonl has every incident": checks.in_the_book(run),
            "no process, folder, socket or shared memory left": checks.nothing_left(run),
        },
    )


def _where(fault: Fault) -> str:
    return "start of a worker" if fault.point == "start" else f"{fault.during}, {fault.point}"


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
