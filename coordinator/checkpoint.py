"""Saving checkpoints, from which a run goes on and ends in the same bits: a safetensors file of arrays each, and its manifest.

The data file gets its name first and the manifest last: a checkpoint exists only once its manifest does.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shardsgd.coordinator.arrays_file import write_arrays
from shardsgd.coordinator.files import Guard, remove_temporary, write_atomically
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.manifest import Manifest
from shardsgd.model.layout import Layout
from shardsgd.model.statistics import NoiseHistory
from shardsgd.spec import JobSpec

# Before the names of the arrays.
PARAMETERS = "parameters/"
OPTIMIZER = "optimizer/"
DATA, MANIFEST = ".safetensors", ".json"


@dataclass(frozen=True)
class Origin:
    """What a checkpoint's bits depend on beside the spec.

    Attributes:
        data_fingerprint: of the dataset.
        jaxlib: version.
        numpy: version.
        device: kind of the workers' devices.
    """

    data_fingerprint: str
    jaxlib: str
    numpy: str
    device: str


@dataclass(frozen=True)
class Job:
    """What all checkpoints of a session have in common.

    Attributes:
        spec: of the job, resolved.
        layout: of the parameters.
        origin: of its bits.
    """

    spec: JobSpec
    layout: Layout
    origin: Origin


def save_checkpoint(folder: Path, state: TrainState, job: Job, guard: Guard = nullcontext) -> Path:
    """Writes a checkpoint, and then removes all but the newest few (`checkpoint.keep`).

    A state is a function of its step, so that one saved again replaces its data file by an equal one.

    Args:
        folder: of the checkpoints.
        state: to save. Must not change meanwhile.
        job: whose state it is.
        guard: see `write_atomically`.

    Returns:
        Its manifest's path.

    Raises:
        OSError: the disk is full, or whatever else it says; the checkpoints are as they were.
    """
    arrays = {PARAMETERS + name: array for name, array in job.layout.views(state.theta).items()}
    arrays |= {f"{OPTIMIZER}{number}": slot for number, slot in enumerate(state.optimizer_state)}
    data = file_path(folder, state.step, DATA)
    digest = write_arrays(data, arrays, guard)
    manifest = Manifest(
        file=data.name,
        nbytes=digest.nbytes,
        sha256=digest.sha256,
        step=state.step,
        state={
            "seconds": state.seconds,
            "recoveries": state.recoveries,
            "schedule_steps": state.schedule_steps,
            "progress": asdict(state.progress),
            "noise": _noise_json(state.noise),
        },
        origin=asdict(job.origin),
        spec=job.spec.model_dump(mode="json"),
    )
    path = file_path(folder, state.step, MANIFEST)
    write_atomically(path, manifest.render(), guard)
    with guard():
        sweep_checkpoints(folder, keep=job.spec.checkpoint.keep)
    return path


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder has a complete checkpoint, usable or not."""
    return bool(files_by_step(folder, MANIFEST))


def sweep_checkpoints(folder: Path, *, keep: int, until: int | None = None) -> None:
    """Leaves a folder's newest checkpoints and nothing else that `save_checkpoint`, also a killed one, ever put there.

    Args:
        folder: of the checkpoints, which nobody else writes to meanwhile.
        keep: how many stay.
        until: the newest step that may stay; None: whatever is there.
    """
    manifests, data = files_by_step(folder, MANIFEST), files_by_step(folder, DATA)
    kept = sorted((step for step in manifests if until is None or step <= until), reverse=True)[:keep]
    # Manifests go first: what has lost its data file must not be taken for a checkpoint.
    for step, path in [*manifests.items(), *data.items()]:
        if step not in kept:
            path.unlink(missing_ok=True)
    remove_temporary(folder, "step-*")


def file_path(folder: Path, step: int, suffix: str) -> Path:
    """A checkpoint's file of a kind, `DATA` or `MANIFEST`."""
    return folder / f"step-{step:09d}{suffix}"


def files_by_step(folder: Path, suffix: str) -> dict[int, Path]:
    """A folder's files of a kind, `DATA` or `MANIFEST`, damaged or not."""
    named = ((re.fullmatch(r"step-(\d{9,})" + re.escape(suffix), path.name), path) for path in folder.glob("step-*"))
    return {int(match[1]): path for match, path in named if match}


def _noise_json(noise: NoiseHistory) -> dict[str, Any]:
    # JSON keys are texts; leaves are numbers.
    return asdict(noise) | {"pairs": [[leaves, total, number] for leaves, (total, number) in noise.pairs.items()]}
