"""Small states and their checkpoints, without jax: cheap enough for processes that are started only to be killed."""

import numpy as np

from shardsgd.coordinator.checkpoint import Job, Origin
from shardsgd.coordinator.loop import TrainState
from shardsgd.coordinator.stop import Progress
from shardsgd.model.layout import Layout
from shardsgd.model.statistics import NoiseHistory
from shardsgd.spec import JobSpec

LAYOUT = Layout.pack([("layer0.weight", (3, 5)), ("layer0.bias", (5,))], np.dtype(np.float32))
ORIGIN = Origin("fingerprint", "0.10.2", "2.4.6", "cpu")
SLOTS = 1


def job_keeping(keep: int = 2, **checkpoint) -> Job:
    spec = JobSpec(data={"source": "digits"}, checkpoint={"keep": keep} | checkpoint)
    return Job(spec.resolved(), LAYOUT, ORIGIN)


def state_at(step: int) -> TrainState:
    """A state that tells its step in every part."""
    arrays = {entry.name: np.arange(entry.size).reshape(entry.shape) + step for entry in LAYOUT.entries}
    return TrainState(
        step=step,
        theta=LAYOUT.fill(LAYOUT.zeros(), arrays),
        optimizer_state=(np.full(LAYOUT.length, step / 3, np.float32),),
        noise=NoiseHistory(weight=step / 7, joint_spread=-step / 11, pairs={1: (step / 3, step), 2: (0.1, 1)}),
        progress=Progress(epochs=step // 10, epoch_rows=step),
        seconds=step / 9,
        recoveries=step,
        schedule_steps=step * 1.1,
    )


def is_same(state: TrainState, other: TrainState) -> bool:
    """Bit for bit."""
    arrays = [(state.theta, other.theta), *zip(state.optimizer_state, other.optimizer_state, strict=True)]
    numbers = ("step", "noise", "progress", "seconds", "recoveries", "schedule_steps")
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in arrays) and all(
        getattr(state, name) == getattr(other, name) for name in numbers
    )
