"""Where a run continues: the newest checkpoint of its folder, if that belongs to the same job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardsgd.coordinator.checkpoint import Origin
from shardsgd.coordinator.checkpoint_reading import load_checkpoint
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.records import Observer
from shardsgd.errors import ResumeError
from shardsgd.model.problem import Problem
from shardsgd.spec import JobSpec

# Only these may change without changing what the steps so far should have been.
_FREE = {"name", "workers", "stop", "checkpoint"}


def check_same_job(spec: JobSpec, folder: RunFolder) -> None:
    """Refuses to continue one job as another.

    Raises:
        ResumeError: naming every field that differs, or that there is no run in the folder.
    """
    _check_same(folder.read_spec().resolved(), spec, f"--resume {folder.path}: the run there")


def resumed_state(
    spec: JobSpec, folder: RunFolder, problem: Problem, origin: Origin, observer: Observer
) -> TrainState | None:
    """The state to go on from; None if the run ended before its first checkpoint, and starts again.

    Raises:
        ResumeError: the checkpoints are damaged or another job's, or the data has changed.
    """
    loaded = load_checkpoint(folder.checkpoints, problem.layout, problem.optimizer.slots, observer.note)
    if loaded is None:
        observer.note(f"{folder.path}: no checkpoint yet; the run begins again")
        return None
    saved = loaded.origin
    _check_same(loaded.spec, spec, f"--resume {folder.path}: the checkpoint of step {loaded.state.step}")
    if saved.data_fingerprint != origin.data_fingerprint:
        raise ResumeError(f"--resume {folder.path}: the data of {spec.data.source} has changed since")
    if saved != origin:
        observer.note(
            f"resuming on jaxlib {origin.jaxlib}, numpy {origin.numpy}, {origin.device} what was begun on jaxlib "
            f"{saved.jaxlib}, numpy {saved.numpy}, {saved.device}: the bits may differ from an uninterrupted run"
        )
    return loaded.state


def _check_same(before: JobSpec, now: JobSpec, what: str) -> None:
    old, new = (_flat(given.model_dump(exclude=_FREE)) for given in (before, now))
    changed = [f"{path} was {old[path]!r}, is {value!r}" for path, value in new.items() if old[path] != value]
    if changed:
        raise ResumeError(f"{what} is another job: " + "; ".join(changed))


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted paths."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
