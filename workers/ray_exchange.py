"""The ray exchange: actor calls and the object store. Works wherever Ray does, across nodes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from numpy.typing import NDArray

from shardsgd.errors import JobError
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.workers.exchange import (
    Event,
    GradientRequest,
    Reply,
    Request,
    RequestFailed,
    WorkerId,
    WorkerLost,
)

Arrays = tuple[NDArray[Any], NDArray[Any]]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

# XLA's name for the threads that compute, as the kernel shows it.
_XLA_THREAD_NAME = "tf_XLAEigen"


class WorkerInfo(NamedTuple):
    """What a worker says of itself once it is ready.

    Attributes:
        pid: of its process.
        xla_threads: threads its XLA computes with; 1 on CPU.
    """

    pid: int
    xla_threads: int


class GradientWorker:
    """A Ray actor that computes leaves. Owns no state that cannot be rebuilt: any worker can answer any request."""

    def __init__(self, problem: Problem, rows: Sequence[ray.ObjectRef[Arrays]]) -> None:
        # Imported here, in the worker's process: jax reads its environment when it is imported.
        from shardsgd.workers.compute import LeafComputer, configure_jax  # noqa: PLC0415

        configure_jax()
        self._computer = LeafComputer(problem, ObjectStoreRows(rows))
        self._computer.warm_up()

    def info(self) -> WorkerInfo:
        """Answers once the worker is ready to compute."""
        names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
        return WorkerInfo(os.getpid(), sum(name == _XLA_THREAD_NAME for name in names))

    def compute(self, request: Request, theta: Flat) -> Reply:
        """Answers a request at θ."""
        if isinstance(request, GradientRequest):
            return self._computer.gradients(request, theta)
        return self._computer.evaluations(request, theta)


class ObjectStoreRows:
    """Rows in Ray's object store: mapped when first used, shared by the workers of a node, never copied.

    Args:
        references: of each shard, and last of the held-out rows.
    """

    def __init__(self, references: Sequence[ray.ObjectRef[Arrays]]) -> None:
        self._references = references
        self._arrays: dict[int, Arrays] = {}

    def shard(self, number: int) -> Arrays:
        """(x, y) of a logical shard."""
        if number not in self._arrays:
            self._arrays[number] = ray.get(self._references[number])
        return self._arrays[number]

    def validation(self) -> Arrays:
        """(x, y) of the held-out rows."""
        return self.shard(len(self._references) - 1)


class RayExchange:
    """Coordinator side: one actor a worker; each request is an actor call, its answer an object."""

    def __init__(
        self,
        problem: Problem,
        shards: Sequence[Arrays],
        validation: Arrays,
        *,
        workers: int,
        environment: Mapping[str, str],
    ) -> None:
        """Starts the workers and waits until each has compiled the leaf program.

        Args:
            problem: the job's mathematics.
            shards: rows of each logical shard.
            validation: held-out rows; arrays of 0 rows for none.
            workers: how many to start.
            environment: variables the workers' processes need.

        Raises:
            JobError: a worker could not be started.
        """
        # In a list: Ray hands workers the references in it; a reference by itself it would fetch at once.
        self._rows = [ray.put(arrays) for arrays in (*shards, validation)]
        self._theta: ray.ObjectRef[Flat] | None = None
        self._pending: dict[ray.ObjectRef[Reply], tuple[WorkerId, Request]] = {}
        # The class's name is what `ps` shows: Ray sets the title of a process to it.
        actor = ray.remote(type("shardsgd-worker", (GradientWorker,), {}))
        options = {
            "num_cpus": 1,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": dict(environment)},
        }
        if not environment:
            del options["runtime_env"]
        self._actors = {worker: actor.options(**options).remote(problem, self._rows) for worker in range(workers)}
        try:
            infos = ray.get([actor.info.remote() for actor in self._actors.values()])
        except ray.exceptions.RayError as error:
            self.close()
            raise JobError(f"a worker could not start: {_first_line(error)}") from error
        except BaseException:
            self.close()
            raise
        self.infos: Mapping[WorkerId, WorkerInfo] = dict(zip(self._actors, infos, strict=True))
        threads = {info.xla_threads for info in infos}
        if threads != {1}:
            self.close()
            raise JobError(
                f"XLA computes with {sorted(threads)} threads in the workers instead of 1: the result would depend on it; "
                "NPROC=1 must be in the workers' environment before jax is imported"
            )

    @property
    def workers(self) -> Sequence[WorkerId]:
        """The workers that can be sent requests now, ascending."""
        return sorted(self._actors)

    def publish(self, theta: Flat) -> None:
        """Puts θ into the object store, once for all workers."""
        self._theta = ray.put(theta)

    def send(self, worker: WorkerId, request: Request) -> None:
        """Calls a worker's actor."""
        self._pending[self._actors[worker].compute.remote(request, self._theta)] = (worker, request)

    def receive(self, timeout_s: float) -> Sequence[Event]:
        """What arrived since the last call, waiting for at least one event; empty after `timeout_s` seconds."""
        first, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        if not first:
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        events = [self._event(reference) for reference in ready]
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Stops the workers and frees everything; may be called twice."""
        for actor in self._actors.values():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)
        self._actors.clear()
        self._pending.clear()
        self._rows.clear()
        self._theta = None

    def _event(self, reference: ray.ObjectRef[Reply]) -> Event | None:
        worker, request = self._pending.pop(reference)
        try:
            reply: Reply = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            return RequestFailed(worker, request, _ANSI.sub("", str(error)).strip())
        except ray.exceptions.RayError as error:
            # A dead worker fails each of its calls; the first one reports it.
            if self._actors.pop(worker, None) is None:
                return None
            return WorkerLost(worker, _first_line(error))
        return reply


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
