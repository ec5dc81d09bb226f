import gc
import threading
import weakref

import numpy as np
import pytest
from checkpoints import is_same, state_at

from shardsgd.coordinator.checkpoint_writer import CheckpointWriter


class Gate:
    """A write that takes until it is let go."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.states = []
        self.open = threading.Event()
        self._error = error

    def __call__(self, state):
        assert self.open.wait(30)
        self.states.append(state)
        if self._error is not None:
            raise self._error


def test_what_is_written_is_the_state_as_it_was_when_the_writing_began():
    gate, state = Gate(), state_at(5)
    writer = CheckpointWriter(gate)
    assert writer.is_idle()
    writer.start(state)
    assert not writer.is_idle()
    # What the steps to come do to the memory.
    state.theta[:] = np.nan
    state.optimizer_state[0][:] = np.nan
    gate.open.set()
    writer.wait()
    assert writer.is_idle()
    assert is_same(gate.states[0], state_at(5))


def test_one_at_a_time():
    gate = Gate()
    writer = CheckpointWriter(gate)
    writer.start(state_at(1))
    with pytest.raises(AssertionError, match="one at a time"):
        writer.start(state_at(2))
    gate.open.set()
    writer.wait()
    writer.start(state_at(3))
    writer.wait()
    assert [state.step for state in gate.states] == [1, 3]


def test_an_error_comes_out_once_where_it_is_asked_for_and_nothing_hangs():
    error = OSError(28, "No space left on device")
    gate = Gate(error)
    gate.open.set()
    writer = CheckpointWriter(gate)
    writer.start(state_at(1))
    writer.wait()
    with pytest.raises(OSError, match="No space left") as caught:
        writer.is_idle()
    assert caught.value is error
    assert writer.is_idle()
    writer.start(state_at(2))
    writer.wait()
    assert [state.step for state in gate.states] == [1, 2]


def test_the_copy_is_freed_and_the_thread_gone_afterwards():
    copies = []
    writer = CheckpointWriter(lambda state: copies.append(weakref.ref(state.theta)))
    threads = threading.active_count()
    writer.start(state_at(1))
    writer.wait()
    gc.collect()
    assert copies[0]() is None
    assert threading.active_count() == threads
