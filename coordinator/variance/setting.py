"""What is measured, decided before anything is started: the problem, its rows, the batch sizes, and where θ comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from shardsgd.coordinator.checkpoint_reading import Checkpoint, load_checkpoint
from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import InputError, ResumeError
from shardsgd.model.layout import Flat, Layout
from shardsgd.model.optimizers import Sgd
from shardsgd.model.problem import Problem
from shardsgd.model.regularizer import Regularizer
from shardsgd.model.sampling import Sampling
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec

# A leaf of the full gradient; and, as in a spec, the most leaves there may be.
_LEAF_ROWS = 256
_MOST_SHARDS = 4096
# Where the number of repeats is not said. A size costs at most an eighth of the largest one more than with the least number.
LEAST_REPEATS, _MOST_REPEATS, _SHARE = 100, 1600, 8
# A job that runs may remove a checkpoint between its being found and its being read.
_TRIES = 3


@dataclass(frozen=True)
class Point:
    """Where the variance is measured.

    Attributes:
        theta: θ, flat.
        step: updates done before it; None where that is not known.
    """

    theta: Flat
    step: int | None


def measured_problem(problem: Problem) -> Problem:
    """A job's problem as it is measured: one step over all rows, no regularizer and no optimizer's state.

    A regularizer adds the same vector to every row's gradient, so that the variance does not contain it.
    """
    rows = problem.sampling.rows
    shards = min(-(-rows // _LEAF_ROWS), _MOST_SHARDS)
    sampling = Sampling(problem.sampling.seed, rows, rows, shards, "shuffle")
    return replace(problem, sampling=sampling, validation_rows=0, optimizer=Sgd(), regularizer=Regularizer())


def dealt_anew(dataset: Dataset, shards: int) -> Dataset:
    """The training rows in the same order, dealt to another number of shards; nothing held out."""

    def in_order(part: int) -> NDArray[Any]:
        dealt = [pair[part] for pair in dataset.shards]
        rows = np.empty((dataset.rows, *dealt[0].shape[1:]), dealt[0].dtype)
        for shard, array in enumerate(dealt):
            rows[shard :: len(dealt)] = array
        return rows

    x, y = in_order(0), in_order(1)
    pairs = tuple((x[shard::shards].copy(), y[shard::shards].copy()) for shard in range(shards))
    return replace(dataset, shards=pairs, validation=None)


def batch_sizes(rows: int, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """The batch sizes to measure, ascending: those that are wanted, or powers of two and n.

    Args:
        rows: n.
        wanted: in any order; None: not said.

    Raises:
        InputError: there are none, or one is not in 1 … n.
    """
    if wanted is None:
        return (*(1 << power for power in range(rows.bit_length()) if 1 << power < rows), rows)
    wrong = sorted({size for size in wanted if not 1 <= size <= rows})
    if wrong or not wanted:
        named = ", ".join(map(str, wrong)) or "none given"
        raise InputError(f"--batches (batches): {named}; accepted: batch sizes from 1 to the {rows} training rows")
    return tuple(sorted(set(wanted)))


def repeats_by_size(rows: int, sizes: Sequence[int], wanted: int | None) -> dict[int, int]:
    """How many batches of each size are drawn, with and as many without replacement.

    Args:
        rows: n.
        sizes: the batch sizes.
        wanted: for every size; None: not said. Then more of small batches, whose distances differ most, if that costs little.

    Raises:
        InputError: fewer than two, which tell nothing of the mean's error.
    """
    if wanted is not None and wanted < 2:
        raise InputError(f"--repeats (repeats) = {wanted}: accepted: 2 or more; the interval comes from their spread")
    affordable = {size: LEAST_REPEATS * rows // (_SHARE * size) for size in sizes}
    return {size: wanted or min(_MOST_REPEATS, max(LEAST_REPEATS, affordable[size])) for size in sizes}


def point_of(at: Path | None, spec: JobSpec, dataset: Dataset, problem: Problem, note: Callable[[str], None]) -> Point:
    """θ_0; or θ of the newest checkpoint of a run, or where there is none what the run has left as its parameters.

    Args:
        at: the run's folder; None: θ_0.
        spec: of the job, resolved.
        dataset: of that spec.
        problem: likewise.
        note: told what the user should know.

    Raises:
        InputError: there is no run, or it is another job's, or the data has changed, or its parameters cannot be read.
    """
    if at is None:
        return Point(problem.network.initialize(spec.seed, problem.layout), 0)
    if not (at / "job.toml").is_file():
        raise InputError(f"--at {at}: no run here (no job.toml)")
    run = read_spec(at / "job.toml").resolved()
    before, now = _compared(run), _compared(spec)
    changed = [f"{path} was {before[path]!r}, is {value!r}" for path, value in now.items() if before[path] != value]
    if changed:
        raise InputError(f"--at {at}: the run there is another job's: " + "; ".join(changed))
    found = _checkpoint(at, problem.layout, make_problem(run, dataset).optimizer.slots, note)
    if found is None:
        note(f"{at}: no checkpoint; its parameters.safetensors is taken, which does not say of which data it is")
        return Point(_parameters(at, problem.layout), _steps(at))
    if found.origin.data_fingerprint != dataset.fingerprint:
        raise InputError(f"--at {at}: the data of {spec.data.source} has changed since")
    return Point(found.state.theta, found.state.step)


def _compared(spec: JobSpec) -> dict[str, Any]:
    """All of a spec that θ's meaning and the order of the rows depend on."""
    tables = {
        "data": spec.data.model_dump(),
        "model": spec.model.model_dump(),
        "objective": {"loss": spec.objective.loss},
        "batch": {"precision": spec.batch.precision, "shards": spec.batch.shards},
    }
    fields = {f"{table}.{name}": value for table, values in tables.items() for name, value in values.items()}
    return {"seed": spec.seed} | fields


def _checkpoint(at: Path, layout: Layout, slots: int, note: Callable[[str], None]) -> Checkpoint | None:
    for attempt in range(_TRIES):
        try:
            return load_checkpoint(at / "checkpoints", layout, slots, note)
        except ResumeError as error:
            if attempt + 1 == _TRIES:
                raise InputError(f"--at {at}: {error}") from None
    return None


def _parameters(at: Path, layout: Layout) -> Flat:
    path = at / "parameters.safetensors"
    theta = layout.zeros()
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"--at {at}: neither a checkpoint nor a usable parameters.safetensors: {error}") from None
    views = layout.views(theta)
    found = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    expected = {name: (view.dtype.name, view.shape) for name, view in views.items()}
    if found != expected:
        raise InputError(f"--at {at}: parameters.safetensors holds {found}; this job's are {expected}")
    for name, view in views.items():
        view[...] = arrays[name]
    return theta


def _steps(at: Path) -> int | None:
    try:
        steps = json.loads((at / "summary.json").read_bytes())["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None
