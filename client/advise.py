"""Advice from Python: the function behind `shardsgd advise`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shardsgd.coordinator.control import Control
from shardsgd.coordinator.records import Silent
from shardsgd.errors import InputError
from shardsgd.spec import JobSpec

if TYPE_CHECKING:
    from shardsgd.coordinator.advice.decide import Advice
    from shardsgd.coordinator.records import Observer

SECONDS = 10.0


def advise(
    spec: JobSpec,
    *,
    at: str | Path | None = None,
    batches: Sequence[int] | None = None,
    workers: Sequence[int] | None = None,
    seconds: float = SECONDS,
    observer: Observer | None = None,
    control: Control | None = None,
) -> Advice:
    """Measures which batch size and how many workers make the most progress per second, and with which learning rate.

    Trains for a while to measure the noise scale, then times steps at a handful of batch sizes and numbers of workers; keeps
    no files of that. Uses the Ray this process is connected to, if it is; otherwise starts one and stops it afterwards.

    Args:
        spec: the job; its learning rate is taken to be right for its batch size.
        at: folder of an ended run of the same job (data, model and objective), whose noise scale is taken instead.
        batches: batch sizes to time, in rows, beside the job's own; by default B/4 to 4·B and up to the noise scale.
        workers: numbers of workers to time beside the job's own; by default one, half of them, all.
        seconds: of training, for the noise scale; an epoch at least, and at most a minute unless more are asked for.
        observer: called as it goes; see `shardsgd.coordinator.records.Observer`.
        control: stops it, from another thread.

    Raises:
        InputError: an argument, the data or the run in `at` is wrong; nothing was started.
        JobError: a run failed; the job diverges, for example.
        InterruptedJobError: it was interrupted; nothing is left of it.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise InputError(f"--seconds {seconds:g} (seconds): must be a number, more than 0")
    # Imported here: `import shardsgd` loads neither ray nor jax.
    from shardsgd.coordinator.advice.measuring import measure  # noqa: PLC0415

    return measure(
        spec,
        at=None if at is None else Path(at),
        batches=batches,
        workers=workers,
        seconds=seconds,
        observer=observer or Silent(),
        interrupted=(control or Control()).interrupted,
    )
