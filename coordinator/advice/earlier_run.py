"""The noise scale that an earlier run of the same job measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from shardsgd.coordinator.advice.law import NoiseScale
from shardsgd.errors import InputError
from shardsgd.formatting import plural
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec

# On which the noise scale depends. It does not depend on the batch size, which may have been another.
_SAME = ("data", "model", "objective")


def earlier_noise(folder: Path, spec: JobSpec) -> tuple[NoiseScale, str]:
    """The noise scale in a run's summary.json, and where it is from, in words.

    Args:
        folder: of the run.
        spec: resolved.

    Raises:
        InputError: there is no ended run in the folder, or it is another job's.
    """
    if not (folder / "job.toml").is_file():
        raise InputError(f"--at {folder}: no run here (no job.toml)")
    earlier = read_spec(folder / "job.toml").resolved()
    for section in _SAME:
        before, now = (getattr(each, section).model_dump() for each in (earlier, spec))
        for name, value in now.items():
            if before[name] != value:
                raise InputError(
                    f"--at {folder}: the run there is another job: {section}.{name} was {before[name]!r}, is {value!r}"
                )
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_bytes())
        noise = summary["gradient_noise"]
        told = NoiseScale(
            _number(noise["noise_scale"]),
            _number(noise.get("noise_scale_low")),
            _number(noise.get("noise_scale_high")) or math.inf,
        )
        steps = int(summary["steps"])
    except FileNotFoundError:
        raise InputError(f"--at {folder}: the run there has not ended (no summary.json)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--at {folder}: summary.json cannot be read: {error!r}") from None
    return told, f"{folder}, {plural(steps, 'step')} at B = {earlier.batch.size:,}"


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
