"""CHAOS.md from the records. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.chaos import kills, price
from benchmarks.chaos.coordinator import CoordinatorRun, Kill
from benchmarks.chaos.delays import Delays
from benchmarks.chaos.faults import FaultsRun
from benchmarks.chaos.kills import KillsRun
from benchmarks.chaos.records import PartResult
from benchmarks.chaos.walk import WalkRun
from benchmarks.results import Comparison
from benchmarks.tables import median_interval, number, table, with_spread

_INTRO = """# Chaos

Written by `python -m benchmarks.chaos`; what is done to whom, and what is looked at: [README.md](README.md). A run that is
disturbed is compared with the same run left alone; "same" means every bit."""


def report(parts: Mapping[str, PartResult]) -> str:
    """The whole file, of the parts that were ever run."""
    found = [_INTRO, *_settings(parts)]
    found += [writer(parts[name].runs) for name, writer in _WRITERS.items() if name in parts]
    return "\n\n".join(found) + "\n"


def wrong(parts: Mapping[str, PartResult]) -> list[str]:
    """Every check that did not hold, in words."""
    return [
        f"{name}, {run.work}: {check}: {what}"
        for name, part in parts.items()
        for run in part.runs
        for check, what in getattr(run, "checks", {}).items()
        if what
    ]


def _settings(parts: Mapping[str, PartResult]) -> list[str]:
    if not parts:
        return []
    keys = dict.fromkeys(key for part in parts.values() for key in part.setting)
    rows = ([key, *(part.setting.get(key, "–") for part in parts.values())] for key in keys)
    return [table(["", *parts], rows)]


def _faults(runs: Sequence[FaultsRun]) -> str:
    kinds = dict.fromkeys(kind for run in runs for kind in run.declared)
    points = sorted({point for run in runs for point in run.by_point})
    figures: list[tuple[str, Callable[[FaultsRun], str]]] = [
        ("steps", lambda run: f"{run.steps:,}"),
        ("faults declared", lambda run: f"{sum(run.declared.values()):,}"),
        ("faults that happened", lambda run: f"{sum(run.fired.values()):,}"),
        (
            "… in the very step (or start) meant, the others at the first occasion after",
            lambda run: f"{run.in_their_step:,}",
        ),
        ("workers started", lambda run: f"{run.starts:,}"),
        *(
            (f"incidents: {kind}", lambda run, kind=kind: f"{run.incidents.get(kind, 0):,}")
            for kind in ("lost", "start failed", "left", "joined", "recovered")
        ),
        ("leaves asked for again, for each leaf of the run", lambda run: _percent(run.repeated_leaves / run.leaves)),
        ("steps a second, left alone", lambda run: number(run.rate_alone)),
        ("steps a second, with a fault every 5 steps", lambda run: number(run.rate)),
        ("throughput against left alone", lambda run: _percent(run.rate / run.rate_alone)),
        (
            "seconds a fault",
            lambda run: number((1 / run.rate - 1 / run.rate_alone) * run.disturbed_steps / sum(run.fired.values())),
        ),
    ]
    return "\n\n".join(
        [
            "## Faults of all kinds, every 5 steps on average\n\nGaps of 0 to 10 steps, 2 workers, `workers.hang_seconds = 1`.",
            table(["", *(run.work for run in runs)], ([name, *map(value, runs)] for name, value in figures)),
            _checks(runs),
            "What happened, by kind and by where:",
            table(
                ["", *(run.work for run in runs)],
                [
                    *(
                        [kind, *(f"{run.fired.get(kind, 0)} of {run.declared.get(kind, 0)}" for run in runs)]
                        for kind in kinds
                    ),
                    *([point, *(str(run.by_point.get(point, 0)) for run in runs)] for point in points),
                ],
            ),
            "How long it took. *Noticed*: from the fault to the run's knowing that the worker is lost; a hang is known after "
            "`hang_seconds`. *Recovered*: from noticing that something is wrong until the round is complete, by kind where a "
            "step had faults of one kind only; a round for which no worker is left waits for the next one to start. "
            "*Replaced*: from the loss of a worker, or notice to it, until another one of its number has joined.",
            *(_delays(run) for run in runs),
        ]
    )


def _delays(run: FaultsRun) -> str:
    rows = [
        [f"{what}: {kind}", str(found.number), *(number(1e3 * value) for value in (found.p50, found.p99, found.most))]
        for what, by_kind in run.delays.items()
        for kind, found in by_kind.items()
    ]
    return table([f"{run.work}; ms", "cases", "p50", "p99", "most"], rows)


def _kills(runs: Sequence[KillsRun]) -> str:
    rows = [
        [
            run.work,
            with_spread(run.alone),
            with_spread(run.killed),
            ", ".join(map(str, run.kills)),
            " ".join([_percent(run.share), f"({_percent(min(run.shares))}–{_percent(max(run.shares))})"]),
            _yes(run.share >= kills.GOAL),
        ]
        for run in runs
    ]
    head = ["rows a second", "left alone", "with kills", "kills", "share", f"at least {_percent(kills.GOAL)}"]
    every = ", ".join(dict.fromkeys(f"{run.every_seconds:g} s in runs of {run.seconds:g} s" for run in runs))
    title = f"## A worker killed every {every}\n\n2 workers; SIGKILL from outside to a random one. Wall clock from the "
    return "\n\n".join(
        [title + "first step to the last; runs with and without kills in turn.", table(head, rows), _checks(runs)]
    )


def _coordinator(runs: Sequence[CoordinatorRun]) -> str:
    parts = [
        "## The coordinator killed again and again",
        "One job, `kill -9` of `shardsgd train`, `shardsgd train --resume`.",
    ]
    for run in runs:
        working = [kill for kill in run.kills if kill.steps]
        seconds = Delays.of(kill.repeated_seconds for kill in working)
        over = sum(kill.repeated_seconds > run.every_seconds for kill in run.kills)
        gone = Delays.of(kill.gone_seconds for kill in run.kills)
        rows = [
            ("steps of the job", f"{run.steps:,}"),
            ("seconds from the command to the first step", number(run.start_seconds)),
            ("kills", str(len(run.kills))),
            ("… before the session's first step", str(len(run.kills) - len(working))),
            ("… that left a checkpoint half-written", str(sum(kill.writing for kill in run.kills))),
            *((f"… at a random moment of: {phase}", str(count)) for phase, count in _phases(run.kills)),
            ("`checkpoint.every_seconds`", f"{run.every_seconds:g}"),
            ("seconds of work repeated after a kill: p50, p99, most", _three(seconds)),
            ("… kills that cost more than `every_seconds`", str(over)),
            ("steps repeated in all", f"{sum(kill.repeated_steps for kill in run.kills):,}"),
            ("seconds of a step", number(run.step_seconds)),
            ("seconds until no process was left: p50, p99, most", _three(gone)),
        ]
        parts += [table([run.work, ""], rows), _checks([run])]
    return "\n\n".join(parts)


def _walk(runs: Sequence[WalkRun]) -> str:
    parts = ["## Workers that come and go", "Through `Control.scale`; the same run with one worker beside it."]
    for run in runs:
        rows = [
            [
                str(stage["workers"]),
                number(stage["waited_seconds"]),
                f"{stage['from_step']:,}",
                f"{stage['steps']:,}",
                number(1e3 * stage["step_seconds"]),
            ]
            for stage in run.stages
        ]
        head = [f"{run.work}: workers", "s until there were so many", "from step", "steps", "ms a step, median"]
        moves = ", ".join(f"{worker} {kind} ({step})" for step, kind, worker in run.moves)
        parts += [table(head, rows), f"Which worker did what (in step): {moves}.", _checks([run])]
    return "\n\n".join(parts)


def _price(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for comparison in comparisons:
        here, there = (comparison.seconds[name] for name in (price.HERE, price.THERE))
        ratios = comparison.ratios(price.HERE, price.THERE)
        low, high = median_interval(ratios)
        lines = [comparison.details[name]["step_seconds"] for name in (price.HERE, price.THERE)]
        rows.append(
            [
                comparison.work,
                with_spread([1e3 * value for value in here]),
                with_spread([1e3 * value for value in there]),
                f"{median(ratios):.3f} ({low:.3f}–{high:.3f})",
                f"{lines[0] / lines[1]:.3f}",
                _yes(median(ratios) <= price.GOAL),
            ]
        )
    head = ["ms a step", price.HERE, price.THERE, "ratio in a round", "ratio of `step_seconds`"]
    title = (
        "## The price where nothing goes wrong\n\nMLP 784-256-128-10, 2 workers, wall clock of a step; both alive, in short "
        "turns. Ratio: median over the rounds, and its 95% interval.\n\n"
    )
    return title + table([*head, f"at most {number(price.GOAL)}"], rows)


def _checks(runs: Sequence[Any]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.checks)
    rows = ([name, *(_held(run.checks.get(name)) for run in runs)] for name in names)
    return table(["held", *(run.work for run in runs)], rows)


def _held(wrong_text: str | None) -> str:
    return "–" if wrong_text is None else f"**no**: {wrong_text.replace('|', '/')[:300]}" if wrong_text else "yes"


def _phases(found: Iterable[Kill]) -> list[tuple[str, int]]:
    phases = [kill.phase for kill in found]
    return [(phase, phases.count(phase)) for phase in ("start", "steps", "checkpoint")]


def _three(found: Delays) -> str:
    return ", ".join(number(value) for value in (found.p50, found.p99, found.most))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


_WRITERS: dict[str, Callable[[Sequence[Any]], str]] = {
    "faults": _faults,
    "kills": _kills,
    "coordinator": _coordinator,
    "walk": _walk,
    "price": _price,
}
