"""The workers of one job: Ray actors, started together and stopped together."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from numpy.typing import NDArray

from shardsgd.errors import InterruptedJobError, JobError
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.workers.exchange import EvaluationRequest, GradientRequest, Reply, WorkerId
from shardsgd.workers.handover import Address

Arrays = tuple[NDArray[Any], NDArray[Any]]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

# How late a Ctrl-C may be noticed while workers start.
_POLL_S = 0.1

# XLA's name for the threads that compute, as the kernel shows it.
_XLA_THREAD_NAME = "tf_XLAEigen"


class WorkerInfo(NamedTuple):
    """What a worker says of itself once it is ready.

    Attributes:
        pid: of its process.
        node: Ray's name of the node it runs on.
        xla_threads: threads its XLA computes with; 1 on CPU.
    """

    pid: int
    node: str
    xla_threads: int


class GradientWorker:
    """A Ray actor that computes leaves. Owns no state that cannot be rebuilt: any worker can answer any request."""

    def __init__(self, worker: WorkerId, problem: Problem, rows: Sequence[ray.ObjectRef[Arrays]]) -> None:
        # Imported here, in the worker's process: jax reads its environment when it is imported.
        from shardsgd.workers.compute import LeafComputer, configure_jax, keep_freed_memory  # noqa: PLC0415

        configure_jax()
        self._worker = worker
        self._problem = problem
        self._computer = LeafComputer(problem, ObjectStoreRows(rows), worker)
        self._computer.warm_up()
        # Not before: what compiling took, and a θ of zeros, would be kept too.
        keep_freed_memory()

    def info(self) -> WorkerInfo:
        """Answers once the worker is ready to compute."""
        names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
        threads = sum(name == _XLA_THREAD_NAME for name in names)
        return WorkerInfo(os.getpid(), ray.get_runtime_context().get_node_id(), threads)

    def compute(self, request: GradientRequest | EvaluationRequest, theta: Flat) -> Reply:
        """Answers a request at θ (the ray exchange)."""
        parameters = self._computer.own_parameters(theta)
        if isinstance(request, EvaluationRequest):
            return self._computer.evaluations(request, parameters)
        return self._computer.gradients(request, parameters)

    def serve(self, address: Address) -> None:
        """Answers requests until the coordinator hangs up (the shared-memory exchange)."""
        from shardsgd.workers.shared_memory_exchange import serve  # noqa: PLC0415

        serve(address, self._worker, self._problem, self._computer)


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


class WorkerPool:
    """Starts the workers of a job and stops them.

    Attributes:
        actors: by worker; those that are known to have died are taken out.
        infos: of every worker that was started.
    """

    def __init__(
        self,
        problem: Problem,
        shards: Sequence[Arrays],
        validation: Arrays,
        *,
        workers: int,
        environment: Mapping[str, str],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Starts the workers and waits until each has compiled the leaf program.

        Args:
            problem: the job's mathematics.
            shards: rows of each logical shard.
            validation: held-out rows; arrays of 0 rows for none.
            workers: how many to start.
            environment: variables the workers' processes need.
            interrupted: polled while waiting.

        Raises:
            JobError: a worker could not be started, or the cluster is too small for the workers.
            InterruptedJobError: the user asked to stop.
        """
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < workers:
            raise JobError(f"workers.count = {workers}: each takes a CPU, and this Ray cluster has {cpus} in all")
        # In a list: Ray hands workers the references in it; a reference by itself it would fetch at once.
        self._rows = [ray.put(arrays) for arrays in (*shards, validation)]
        # The class's name is what `ps` shows: Ray sets the title of a process to it.
        actor = ray.remote(type("shardsgd-worker", (GradientWorker,), {}))
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        if environment:
            options["runtime_env"] = {"env_vars": dict(environment)}
        self.actors: dict[WorkerId, Any] = {
            worker: actor.options(**options).remote(worker, problem, self._rows) for worker in range(workers)
        }
        try:
            infos = _wait([actor.info.remote() for actor in self.actors.values()], interrupted)
        except ray.exceptions.RayError as error:
            self.close()
            raise JobError(f"a worker could not start: {last_line(error)}") from error
        except BaseException:
            self.close()
            raise
        self.infos: Mapping[WorkerId, WorkerInfo] = dict(zip(self.actors, infos, strict=True))
        threads = {info.xla_threads for info in infos}
        if threads != {1}:
            self.close()
            raise JobError(
                f"XLA computes with {sorted(threads)} threads in the workers instead of 1: the result would depend on it; "
                "NPROC=1 must be in the workers' environment before jax is imported"
            )

    def close(self) -> None:
        """Stops the workers and frees their rows; may be called twice."""
        for actor in self.actors.values():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)
        self.actors.clear()
        self._rows.clear()


def _wait(references: Sequence[ray.ObjectRef[WorkerInfo]], interrupted: Callable[[], bool]) -> list[WorkerInfo]:
    """What the workers say of themselves. In a cluster that others use too they may wait for their CPUs."""
    waiting = list(references)
    while waiting:
        if interrupted():
            raise InterruptedJobError("interrupted before the first step")
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_S)
        ray.get(ready)
    infos: list[WorkerInfo] = ray.get(list(references))
    return infos


def first_line(error: Exception) -> str:
    """What an error of Ray says before it begins to explain."""
    return plain(error).splitlines()[0]


def last_line(error: Exception) -> str:
    """What an error of Ray ends with: the exception that was raised in the worker."""
    return plain(error).splitlines()[-1]


def plain(error: Exception) -> str:
    """An error's text without the colours that Ray puts into it."""
    return _ANSI.sub("", str(error)).strip()
