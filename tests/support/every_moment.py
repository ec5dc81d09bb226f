"""Breaks a session off at its first, second, third … operation on a file, until it comes to its end unbroken.

python every_moment.py killed|"taken over" FOLDER. Each session is a fork of this process, which has neither jax nor threads.
Prints how many operations there were, and how often the folder changed hands.
"""

import os
import signal
import sys
from pathlib import Path

from checkpoints import LAYOUT, SLOTS, is_same, state_at
from session_process import opened, step_once

from shardsgd.coordinator import fence
from shardsgd.coordinator.checkpoint_reading import load_checkpoint
from shardsgd.errors import InputError, TakenOverError

_AUDITED = ("open", "fcntl.flock", "os.rename", "os.remove", "os.scandir", "os.listdir", "os.mkdir")
_OTHERS = ("fsync", "write", "close")

takeovers = 0


class Broken:
    """Sends this process a signal just before its n-th operation on a file."""

    def __init__(self, number: int, sent: signal.Signals) -> None:
        self._left, self._signal = number, sent
        sys.addaudithook(lambda event, _: self._count() if event in _AUDITED else None)
        for name in _OTHERS:
            setattr(os, name, self._counted(getattr(os, name)))

    def disarm(self) -> None:
        self._left = 0

    def _counted(self, function):
        def counted(*arguments):
            self._count()
            return function(*arguments)

        return counted

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._signal)


def forked(path: Path, number: int, sent: signal.Signals) -> int:
    """A session of two more steps, broken off; returns its pid. Exit 0: at its end, 3: taken over, 1: anything else."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        with opened(path, "resume") as (folder, step):
            broken = Broken(number, sent)
            for later in range(step + 1, step + 3):
                step_once(folder, later)
            folder.write_parameters(LAYOUT.views(state_at(step).theta))
            # What comes now only looks whether the folder is still its own, and lets go of it.
            broken.disarm()
        status = 0
    except TakenOverError:
        status = 3
    finally:
        os._exit(status)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def check_killed(path: Path, number: int) -> bool:
    status = os.waitpid(forked(path, number, signal.SIGKILL), 0)[1]
    loaded = load_checkpoint(path / "checkpoints", LAYOUT, SLOTS, lambda text: None)
    if loaded is not None:
        assert is_same(loaded.state, state_at(loaded.state.step))
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


def check_taken_over(path: Path, number: int) -> bool:
    global takeovers  # noqa: PLW0603
    pid = forked(path, number, signal.SIGSTOP)
    status = os.waitpid(pid, os.WUNTRACED)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return True
    ours = None
    try:
        with opened(path, "take-over") as (folder, step):
            step_once(folder, step + 1)
            ours = content(path)
            takeovers += 1
            os.kill(pid, signal.SIGCONT)
            status = os.waitpid(pid, 0)[1]
            assert content(path) == ours, f"operation {number}"
            step_once(folder, step + 2)
    except InputError as error:
        # It holds the lock under which a change is made: it keeps the folder, and goes on undisturbed.
        said = str(error)
        os.kill(pid, signal.SIGCONT)
        status = os.waitpid(pid, 0)[1]
        assert f"pid {pid}" in said
    expected = 0 if ours is None else 3
    assert os.WEXITSTATUS(status) == expected, f"operation {number}: {os.WEXITSTATUS(status)}, not {expected}"
    return False


def main(what: str, folder: str) -> None:
    check = {"killed": check_killed, "taken over": check_taken_over}[what]
    fence._PATIENCE_S = 0.0
    number = 1
    while not check(Path(folder), number):
        number += 1
    print(number - 1, takeovers)


if __name__ == "__main__":
    main(*sys.argv[1:])
