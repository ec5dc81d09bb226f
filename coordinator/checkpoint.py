"""Checkpoints: one safetensors file each, from which a run goes on and ends in the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from shardsgd.coordinator.files import write_arrays
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.stop import Progress
from shardsgd.errors import ResumeError
from shardsgd.model.layout import Layout
from shardsgd.model.statistics import NoiseHistory

_FORMAT = "1"
_PARAMETERS = "parameters/"
_OPTIMIZER = "optimizer/"
_KEPT = 2


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


def save_checkpoint(folder: Path, state: TrainState, layout: Layout, origin: Origin) -> Path:
    """Writes `step-….safetensors`, durable before it has its name, and removes all but the newest two."""
    arrays = {_PARAMETERS + name: array for name, array in layout.views(state.theta).items()}
    arrays |= {f"{_OPTIMIZER}{number}": slot for number, slot in enumerate(state.optimizer_state)}
    scalars = {
        "step": state.step,
        "seconds": state.seconds,
        "recoveries": state.recoveries,
        "progress": asdict(state.progress),
        "noise": _noise_json(state.noise),
    }
    metadata = {"format": _FORMAT, "state": json.dumps(scalars), "origin": json.dumps(asdict(origin))}
    path = folder / f"step-{state.step:09d}.safetensors"
    write_arrays(path, arrays, metadata)
    for old in _checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def load_checkpoint(
    folder: Path, layout: Layout, slots: int, note: Callable[[str], None]
) -> tuple[TrainState, Origin] | None:
    """The newest usable state saved in a folder; None if none was saved.

    Args:
        folder: where `save_checkpoint` wrote.
        layout: of the parameters.
        slots: arrays of the optimizer's state.
        note: told of each checkpoint that is passed over because it is damaged.

    Raises:
        ResumeError: there are checkpoints, and none can be used.
    """
    problems = []
    for path in reversed(_checkpoints(folder)):
        try:
            loaded = _load(path, layout, slots)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{path}: not a usable checkpoint: {error}")
        else:
            for problem in problems:
                note(problem)
            return loaded
    if problems:
        raise ResumeError("; ".join(problems))
    return None


def _load(path: Path, layout: Layout, slots: int) -> tuple[TrainState, Origin]:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"its format is {metadata.get('format')}, this version reads {_FORMAT}")
    scalars = json.loads(metadata["state"])
    theta = layout.fill(layout.zeros(), {entry.name: arrays[_PARAMETERS + entry.name] for entry in layout.entries})
    state = TrainState(
        step=scalars["step"],
        theta=theta,
        optimizer_state=tuple(arrays[f"{_OPTIMIZER}{number}"] for number in range(slots)),
        noise=_noise(scalars["noise"]),
        progress=Progress(**scalars["progress"]),
        seconds=scalars["seconds"],
        recoveries=scalars["recoveries"],
    )
    return state, Origin(**json.loads(metadata["origin"]))


def clear_checkpoints(folder: Path) -> None:
    """Removes every checkpoint of a folder."""
    for path in _checkpoints(folder):
        path.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first: the names sort by step."""
    return sorted(folder.glob("step-*.safetensors"))


def _noise_json(noise: NoiseHistory) -> dict[str, Any]:
    # JSON keys are texts; leaves are numbers.
    return asdict(noise) | {"pairs": [[leaves, total, number] for leaves, (total, number) in noise.pairs.items()]}


def _noise(fields: dict[str, Any]) -> NoiseHistory:
    return NoiseHistory(**fields | {"pairs": {leaves: (total, number) for leaves, total, number in fields["pairs"]}})
