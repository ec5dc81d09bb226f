"""One job whose coordinator is killed a hundred times."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import tomli_w

from benchmarks.chaos import checks
from benchmarks.chaos.command import STEPS_VARIABLE
from benchmarks.chaos.leftovers import LIMIT_S, processes_gone, shared_memory, things_left
from benchmarks.chaos.moments import Moment
from benchmarks.chaos.options import Options
from benchmarks.chaos.runs import started
from benchmarks.chaos.steplog import Done, read_steps, steps_per_second
from benchmarks.chaos.workloads import large
from benchmarks.progress import say

_EVERY_SECONDS = 0.5
_QUICK_KILLS = 4
_PROBE_STEPS = 100
# Steps that a session does on average before it is killed, in seconds; and what is left to do after the last kill.
_MEAN_SECONDS, _REST_SECONDS = 0.7, 5.0
_END_SECONDS = 900.0


@dataclass(frozen=True)
class Kill:
    """One `kill -9` of the coordinator.

    Attributes:
        phase: see `Moment`.
        after: seconds after the process's start.
        steps: done in this session.
        writing: whether a checkpoint was left half-written.
        repeated_steps: that later sessions did again.
        repeated_seconds: what these had taken, from one step's end to the next, so with evaluations between them.
        longest_step: of these, in seconds: what is under way when a checkpoint is due has to be done first.
        gone_seconds: until no process of the run was left.
    """

    phase: str
    after: float
    steps: int
    writing: bool
    repeated_steps: int
    repeated_seconds: float
    longest_step: float
    gone_seconds: float


@dataclass(frozen=True)
class CoordinatorRun:
    """A job that was killed again and again beside one that was not.

    Attributes:
        work: what was computed.
        every_seconds: `checkpoint.every_seconds`.
        steps: of the job.
        start_seconds: from the command to its first step, where nobody disturbs it.
        kills: in order.
        step_seconds: how long a step takes.
        checks: see `FaultsRun`.
    """

    work: str
    every_seconds: float
    steps: int
    start_seconds: float
    kills: list[Kill]
    step_seconds: float
    checks: dict[str, str]


class Job:
    """A job in a folder, as a user would run it.

    Attributes:
        out: the run's folder.
        sessions: the steps of each session.
    """

    def __init__(self, spec: dict[str, Any], scratch: Path) -> None:
        self._folder = Path(mkdtemp(dir=scratch))
        self._spec = self._folder / "job.toml"
        self._spec.write_text(tomli_w.dumps(spec))
        self.out = self._folder / "run"
        self.sessions: list[list[Done]] = []

    def session(self, moment: Moment | None) -> tuple[float, bool, float, list[str]]:
        """Starts or resumes the job, until a moment or to its end.

        Returns:
            Seconds that it ran, whether it was killed, seconds until its last process was gone, and what it left.

        Raises:
            ChaosError: it ended otherwise than by being killed or with success.
        """
        begun = (self.out / "job.toml").exists()
        arguments = ["--resume", str(self.out)] if begun else [str(self._spec), "--out", str(self.out)]
        steps = self._folder / f"steps-{len(self.sessions)}"
        command = ["-m", "benchmarks.chaos.command", "train", *arguments, "--json"]
        segments, began = shared_memory(), time.monotonic()
        with started(command, self._folder, {STEPS_VARIABLE: str(steps)}) as process:
            killed = moment is not None and moment.wait(process.pid, steps, self.out / "checkpoints")
            if killed:
                process.kill()
            elif (code := process.wait(_END_SECONDS)) != 0:
                raise process.error(f"ended with exit code {code}" if code is not None else "does not end")
            seconds = time.monotonic() - began
            gone, left = processes_gone()
            left += things_left(process.pid, segments)
        self.sessions.append(read_steps(steps))
        return seconds, killed, gone, left

    @property
    def unfinished_files(self) -> set[str]:
        """Of checkpoints that were being written when a session was killed."""
        return {path.name for path in (self.out / "checkpoints").glob(".step-*")}

    @property
    def summary(self) -> dict[str, Any]:
        """Of the job that has ended."""
        return json.loads((self.out / "summary.json").read_text())

    @property
    def step_lines(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl about steps."""
        lines = map(json.loads, (self.out / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if "loss" in line]


def measure(options: Options) -> Iterator[CoordinatorRun]:
    """One job."""
    count = _QUICK_KILLS if options.quick else options.kills
    work = large(options.scratch)
    tables = {"workers": {"count": 2}, "checkpoint": {"every_seconds": _EVERY_SECONDS}}
    probe = Job(work.job(stop={"steps": _PROBE_STEPS}, **tables), options.scratch)
    began = time.monotonic()
    probe.session(None)
    start_seconds, rate = probe.sessions[0][0].at - began, steps_per_second(probe.sessions[0])
    steps = round(rate * (_MEAN_SECONDS * count + _REST_SECONDS))
    spec = work.job(stop={"steps": steps}, **tables)
    say(
        f"{work.name}: {steps} steps, {start_seconds:.1f} s from the command to the first; alone, then killed {count} times"
    )
    alone = Job(spec, options.scratch)
    alone.session(None)
    job = Job(spec, options.scratch)
    kills, left = _killed(job, count, start_seconds, random.Random(options.seed))
    kills = _with_repetitions(kills, job.sessions)
    yield CoordinatorRun(
        work=work.name,
        every_seconds=_EVERY_SECONDS,
        steps=steps,
        start_seconds=start_seconds,
        kills=kills,
        step_seconds=1 / rate,
        checks=_checks(job, alone, kills, count, left),
    )


def _killed(job: Job, count: int, start_seconds: float, chance: random.Random) -> tuple[list[Kill], list[str]]:
    """Kills a job again and again and then lets it end; the kills, not knowing yet what they cost, and what they left."""
    kills: list[Kill] = []
    everything_left: list[str] = []
    killed = True
    while killed:
        moment = Moment.drawn(chance, start_seconds) if len(kills) < count else None
        before = job.unfinished_files
        after, killed, gone, left = job.session(moment)
        everything_left += [f"after kill {len(kills) + 1}: {each}" for each in left]
        if killed and moment is not None:
            writing = bool(job.unfinished_files - before)
            kills.append(Kill(moment.phase, after, len(job.sessions[-1]), writing, 0, 0.0, 0.0, gone))
            if len(kills) % 5 == 0:
                reached = max((session[-1].step for session in job.sessions if session), default=-1) + 1
                say(f"    {len(kills)} of {count} kills, step {reached}")
    return kills, everything_left


def _with_repetitions(kills: list[Kill], sessions: list[list[Done]]) -> list[Kill]:
    """Kills with what they cost: the steps of their session that the next one with steps began before."""
    found = []
    for number, kill in enumerate(kills):
        done = sessions[number]
        following = next((session for session in sessions[number + 1 :] if session), [])
        repeated = [each for each in done if following and each.step >= following[0].step]
        # When the one before was done; of a session's first step only the end is known.
        times = [each.at for each in done if repeated and each.step >= repeated[0].step - 1]
        gaps = [after - before for before, after in pairwise(times)]
        cost = {"repeated_steps": len(repeated), "repeated_seconds": sum(gaps), "longest_step": max(gaps, default=0.0)}
        found.append(replace(kill, **cost))
    return found


def _checks(job: Job, alone: Job, kills: list[Kill], count: int, left: list[str]) -> dict[str, str]:
    missing = "" if len(kills) == count else f"{len(kills)}: the job was over before"
    beyond = [kill.repeated_seconds - kill.longest_step - _EVERY_SECONDS for kill in kills]
    costly = [seconds for seconds in beyond if seconds > 0]
    gone = [kill.gone_seconds for kill in kills if kill.gone_seconds >= LIMIT_S]
    fields = ("state", "steps", "parameters_sha256", "train_loss", "gradient_noise")
    return {
        f"{count} kills": missing,
        "same parameters, final loss and statistics, bit for bit": checks.same_end(job.summary, alone.summary, fields),
        "same loss, gradient norm and noise in every step": checks.same_steps(job.step_lines, alone.step_lines),
        "no step lost": checks.no_step_lost(job.step_lines, alone.summary["steps"]),
        f"never more than checkpoint.every_seconds = {_EVERY_SECONDS:g} s and a step of work repeated": (
            f"after {len(costly)} kills, by {max(costly):.3f} s at most" if costly else ""
        ),
        f"no process left {LIMIT_S:g} s after any kill": "" if not gone else f"after {len(gone)} kills",
        "nothing left": "; ".join(left),
    }
