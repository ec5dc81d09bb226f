"""A session of a run without workers, in a process of its own: saves checkpoints until it is stopped or killed.

python session_process.py FOLDER MODE [FUNCTION STEP]: takes the folder, goes on from its newest checkpoint and prints each step
that it has saved. MODE is "run", "resume" or "take-over". At that step the process stops itself (SIGSTOP) when it first comes
to that function of the os module.
"""

import itertools
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from checkpoints import LAYOUT, SLOTS, is_same, job_keeping, state_at

from shardsgd.coordinator.checkpoint import save_checkpoint
from shardsgd.coordinator.checkpoint_reading import load_checkpoint
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.records import StepRecord
from shardsgd.errors import ShardsgdError


def record_of(step: int) -> StepRecord:
    return StepRecord(
        step=step,
        epoch=0,
        loss=1.5,
        learning_rate=0.1,
        gradient_norm=2.0,
        noise_trace=None,
        noise_scale=30.0,
        step_seconds=0.01,
    )


@contextmanager
def opened(path: Path, mode: str):
    """The folder as a session has it, and the step it goes on from."""
    folder = RunFolder(path)
    with folder.lock(take_over=mode == "take-over"):
        loaded = None if mode == "run" else load_checkpoint(folder.checkpoints, LAYOUT, SLOTS, lambda text: None)
        if loaded is not None:
            assert is_same(loaded.state, state_at(loaded.state.step)), (
                "a checkpoint that is not whole was taken for one"
            )
        with folder.record(job_keeping().spec, resumed=loaded.state if loaded else None):
            yield folder, loaded.state.step if loaded else 0


def step_once(folder: RunFolder, step: int) -> None:
    """What a session leaves of a step and a checkpoint after it."""
    folder.append(record_of(step - 1))
    folder.flush()
    folder.sync()
    save_checkpoint(folder.checkpoints, state_at(step), job_keeping(), folder.guard)


def stop_at(function: str) -> None:
    """Stops this process when it first comes to a function of the os module."""
    original = getattr(os, function)

    def stopping(*arguments):
        setattr(os, function, original)
        os.kill(os.getpid(), signal.SIGSTOP)
        return original(*arguments)

    setattr(os, function, stopping)


def main(path: str, mode: str, function: str = "", at: str = "0") -> None:
    with opened(Path(path), mode) as (folder, before):
        for step in itertools.count(before + 1):
            if step == int(at):
                stop_at(function)
            step_once(folder, step)
            print(step, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ShardsgdError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(error.exit_code)
