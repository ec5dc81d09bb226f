"""Workers that have no job: started ahead, or kept from the last job, so that the next one need not wait for processes."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray

from shardsgd.workers.worker import GradientWorker

# A worker that is at the end of a job still computes what it was asked last; a longer wait would be for one that hangs.
_RETIRE_S = 1.0
# More than this a worker that compiled a few programs does not have; what is in shared memory does not count.
_MOST_BYTES = 768 * 2**20


class Actor(NamedTuple):
    """A worker's actor, and its process if it is on this machine.

    Attributes:
        handle: of the actor.
        node: Ray's name of the node it runs on.
        process: a file descriptor of the process itself, not its number, which might be another's by the time it is used;
            None on another node. Whoever holds this record closes it.
    """

    handle: Any
    node: str
    process: int | None

    @property
    def alive(self) -> bool:
        """Whether it lives, as far as this machine can tell."""
        if self.process is None:
            return True
        ended = select.poll()
        ended.register(self.process, select.POLLIN)
        return not ended.poll(0)

    def end(self) -> None:
        """Kills it, even if it is stopped."""
        end(self.handle, self.process)


def end(handle: Any, process: int | None) -> None:
    """Kills an actor, even one whose process is stopped, and closes the process's file descriptor."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(handle)


def new_actor(environment: Mapping[str, str], scheduling: Any = None) -> Any:
    """Starts an idle worker; returns the handle of its actor at once.

    Args:
        environment: variables its process needs besides its parent's.
        scheduling: strategy that says where; anywhere if None.
    """
    options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
    if environment:
        options["runtime_env"] = {"env_vars": dict(environment)}
    if scheduling is not None:
        options["scheduling_strategy"] = scheduling
    return _actor_class().options(**options).remote()


@functools.cache
def _actor_class() -> Any:
    # The class's name is what `ps` shows: Ray sets the title of a process to it.
    return ray.remote(type("shardsgd-worker", (GradientWorker,), {}))


class IdleWorkers:
    """The idle workers of this process, for its next job. Not to be used by two jobs at a time.

    Attributes:
        environment: variables that workers' processes need besides their parent's.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._idle: list[Actor] = []

    def __len__(self) -> int:
        self._drop_the_dead()
        return len(self._idle)

    def start(self, count: int) -> None:
        """Starts so many more, and waits until they are warm.

        Raises:
            ray.exceptions.RayError: one could not be started.
        """
        handles = [new_actor(self.environment) for _ in range(count)]
        for handle, (pid, node) in zip(handles, ray.get([each.warm_up.remote() for each in handles]), strict=True):
            self._idle.append(Actor(handle, node, process_of(pid, node)))

    def take(self, node: str | None = None) -> Actor | None:
        """Hands out one of the workers, of a certain node if one is named; None if there is none."""
        self._drop_the_dead()
        for number in reversed(range(len(self._idle))):
            if node in (None, self._idle[number].node):
                return self._idle.pop(number)
        return None

    def keep(self, actors: Sequence[Actor]) -> None:
        """Keeps workers whose job has ended; ends those that hang, have been given notice or hold much memory."""
        retired = {actor.handle.retire.remote(): actor for actor in actors if actor.alive}
        done: Sequence[ray.ObjectRef[int]] = []
        with contextlib.suppress(ray.exceptions.RayError):
            done, _ = ray.wait(list(retired), num_returns=len(retired), timeout=_RETIRE_S) if retired else ([], [])
        fit = [retired[answer] for answer in done if _is_small(answer)]
        for actor in actors:
            if actor in fit:
                self._idle.append(actor)
            else:
                actor.end()

    def close(self) -> None:
        """Ends all; may be called twice."""
        while self._idle:
            self._idle.pop().end()

    def _drop_the_dead(self) -> None:
        for actor in [actor for actor in self._idle if not actor.alive]:
            self._idle.remove(actor)
            actor.end()


def process_of(pid: int, node: str) -> int | None:
    """A file descriptor of a worker's process; None if that is on another node, or gone."""
    if node == ray.get_runtime_context().get_node_id():
        with contextlib.suppress(ProcessLookupError):
            return os.pidfd_open(pid)
    return None


def _is_small(answer: ray.ObjectRef[int]) -> bool:
    try:
        return bool(ray.get(answer) <= _MOST_BYTES)
    except ray.exceptions.RayError:
        return False
