"""From the command to the first step, with nothing running before."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

import tomli_w

from benchmarks.alternate import Options
from benchmarks.contender import ContenderError
from benchmarks.processes import descendants, end
from benchmarks.progress import say
from benchmarks.results import Comparison
from benchmarks.work import job, write_rows

WORK, OURS, RAY_TRAIN = "command to first step", "shardsgd train", "Ray Train"
BATCH, SHARDS = 256, 8

# Our plain progress writes a line as soon as the first step is done; a share of the work comes before the number.
_STEP = re.compile(rb"(^|\s)step \d")
_END_SECONDS, _PAUSE_SECONDS = 30.0, 1.0


def measure(options: Options) -> list[Comparison]:
    """One comparison, in turn, in rounds of one start each."""
    say(f"{WORK}:")
    source = write_rows(options.scratch / "rows.npz")
    job_file = options.scratch / "job.toml"
    job_file.write_text(tomli_w.dumps(job(source, batch=BATCH, shards=SHARDS)))
    seconds: dict[str, list[float]] = {OURS: [], RAY_TRAIN: []}
    for number in range(options.rounds):
        for name in list(seconds)[:: 1 if number % 2 else -1]:
            folder = Path(mkdtemp(dir=options.scratch))
            command = (
                [Path(sys.executable).with_name("shardsgd"), "train", job_file, "--out", folder]
                if name == OURS
                else [sys.executable, "-m", "benchmarks.cold_ray_train", source, str(BATCH), folder]
            )
            seconds[name].append(first_step_seconds([str(part) for part in command]))
            time.sleep(_PAUSE_SECONDS)
        figures = "  ".join(f"{name} {values[-1]:.1f} s" for name, values in seconds.items())
        say(f"  round {number + 1}/{options.rounds}: {figures}")
    return [Comparison(WORK, seconds)]


def first_step_seconds(command: Sequence[str]) -> float:
    """Seconds from a command's start to its first line about a step; then it gets a Ctrl-C.

    Raises:
        ContenderError: it ended without such a line.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None, "it was asked for"
    try:
        return _step_line(process.stdout) - started
    finally:
        below = descendants(process.pid)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end(below, grace_seconds=2.0)


def _step_line(output: IO[bytes]) -> float:
    """When the first line about a step came."""
    lines = []
    for line in output:
        if _STEP.search(line):
            return time.perf_counter()
        lines.append(line.decode(errors="replace"))
    raise ContenderError("no step was taken; the output:\n" + "".join(lines[-15:]))
