"""Reading checkpoints: the newest one that is byte for byte what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from shardsgd.coordinator.arrays_file import Digest, read_digest
from shardsgd.coordinator.checkpoint import DATA, MANIFEST, OPTIMIZER, PARAMETERS, Origin, file_path, files_by_step
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.manifest import FORMAT, Manifest
from shardsgd.coordinator.stop import Progress
from shardsgd.errors import ResumeError, SpecError
from shardsgd.model.layout import Flat, Layout
from shardsgd.model.statistics import NoiseHistory
from shardsgd.spec import JobSpec


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        state: to go on from.
        origin: of its bits.
        spec: of the job that left it, resolved.
    """

    state: TrainState
    origin: Origin
    spec: JobSpec


def load_checkpoint(folder: Path, layout: Layout, slots: int, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest usable checkpoint of a folder; None if none was completed.

    Args:
        folder: where `save_checkpoint` wrote.
        layout: of the parameters.
        slots: arrays of the optimizer's state.
        note: told of each checkpoint that is passed over, and why.

    Raises:
        ResumeError: there are checkpoints, and none can be used.
    """
    manifests, data = files_by_step(folder, MANIFEST), files_by_step(folder, DATA)
    problems: list[str] = []
    unfinished: list[str] = []
    loaded = None
    for step in sorted(manifests.keys() | data.keys(), reverse=True):
        try:
            if step in manifests:
                loaded = _load(manifests[step], step, layout, slots)
                break
            _check_format_1(data[step])
        except (SafetensorError, SpecError, OSError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{folder / f'step-{step:09d}'}: not a usable checkpoint: {error}")
        else:
            unfinished.append(f"{data[step]}: not a complete checkpoint: it has no manifest")
    if loaded is None and problems:
        raise ResumeError("; ".join(problems))
    for text in problems + unfinished:
        note(text)
    return loaded


def _load(path: Path, step: int, layout: Layout, slots: int) -> Checkpoint:
    manifest = Manifest.parse(path.read_bytes())
    data = file_path(path.parent, step, DATA)
    if (manifest.step, manifest.file) != (step, data.name):
        raise ValueError(f"its manifest is that of step {manifest.step}")
    if not data.is_file():
        raise ValueError(f"its data file {data.name} is missing")
    expected, found = Digest(manifest.nbytes, manifest.sha256), read_digest(data)
    if found.nbytes != expected.nbytes:
        raise ValueError(f"{data.name} has {found.nbytes} bytes, not {expected.nbytes}")
    if found != expected:
        raise ValueError(f"{data.name} has been altered: its SHA-256 is not the manifest's")
    theta, optimizer_state = _read_arrays(data, layout, slots)
    state = TrainState(
        step=step,
        theta=theta,
        optimizer_state=optimizer_state,
        noise=_noise(manifest.state["noise"]),
        progress=Progress(**manifest.state["progress"]),
        seconds=manifest.state["seconds"],
        recoveries=manifest.state["recoveries"],
        # Missing where no gain was known yet.
        schedule_steps=manifest.state.get("schedule_steps", float(step)),
    )
    return Checkpoint(state, Origin(**manifest.origin), JobSpec(**manifest.spec).resolved())


def _read_arrays(path: Path, layout: Layout, slots: int) -> tuple[Flat, tuple[Flat, ...]]:
    """θ and the optimizer's slots. One array at a time is in memory twice."""
    theta = layout.zeros()
    with safe_open(path, framework="numpy") as file:
        names = {PARAMETERS + entry.name for entry in layout.entries}
        expected = names | {f"{OPTIMIZER}{number}" for number in range(slots)}
        if set(file.keys()) != expected:
            raise ValueError(f"it holds {sorted(file.keys())}, not {sorted(expected)}")

        def read(name: str, like: NDArray[Any]) -> NDArray[Any]:
            array: NDArray[Any] = file.get_tensor(name)
            if (array.shape, array.dtype) != (like.shape, like.dtype):
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not {like.dtype} {like.shape}")
            return array

        for name, view in layout.views(theta).items():
            view[...] = read(PARAMETERS + name, view)
        return theta, tuple(read(f"{OPTIMIZER}{number}", theta) for number in range(slots))


def _check_format_1(data: Path) -> None:
    """Refuses a checkpoint of the first format, which was complete without a manifest."""
    try:
        with safe_open(data, framework="numpy") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):
        return
    if "format" in metadata:
        raise ValueError(f"its format is {metadata['format']}, this version reads {FORMAT}")


def _noise(fields: dict[str, Any]) -> NoiseHistory:
    pairs = {leaves: (total, number) for leaves, total, number in fields["pairs"]}
    if "trace_spread" not in fields:
        # Of a version without intervals: smoothing begins again, as values without their spread would seem to be exact.
        fields = fields | {"weight": 0.0, "trace": 0.0, "norm_squared": 0.0}
    return NoiseHistory(**fields | {"pairs": pairs})
