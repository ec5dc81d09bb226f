"""The workers of one job: Ray actors that are started, replaced and stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shardsgd.errors import InterruptedJobError, JobError
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.workers.exchange import EvaluationRequest, GradientRequest, Reply, WorkerId
from shardsgd.workers.faults import FaultInjector, FaultPlan
from shardsgd.workers.handover import Address

if TYPE_CHECKING:
    from types import FrameType

Arrays = tuple[NDArray[Any], NDArray[Any]]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

# How late a Ctrl-C may be noticed while workers start.
_POLL_S = 0.1
# How long a job waits for its other first workers once one is ready.
_LAG_S = 60.0

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

    def __init__(
        self,
        worker: WorkerId,
        problem: Problem,
        rows: Sequence[ray.ObjectRef[Arrays]],
        faults: FaultPlan | None = None,
    ) -> None:
        # Imported here, in the worker's process: jax reads its environment when it is imported.
        from shardsgd.workers.compute import LeafComputer, configure_jax, keep_freed_memory  # noqa: PLC0415

        self._faults = FaultInjector(faults, worker) if faults else None
        if self._faults:
            self._faults.started()
        configure_jax()
        self._worker = worker
        self._problem = problem
        self._leaving = False
        # SIGTERM is notice (preemption, a node that is drained): what was asked is answered, nothing more.
        signal.signal(signal.SIGTERM, self._take_notice)
        self._computer = LeafComputer(problem, ObjectStoreRows(rows), worker)
        self._computer.warm_up()
        # Not before: what compiling took, and a θ of zeros, would be kept too.
        keep_freed_memory()

    def info(self) -> WorkerInfo:
        """Answers once the worker is ready to compute."""
        names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
        threads = sum(name == _XLA_THREAD_NAME for name in names)
        return WorkerInfo(os.getpid(), ray.get_runtime_context().get_node_id(), threads)

    def compute(self, request: GradientRequest | EvaluationRequest, theta: Flat) -> tuple[Reply, bool]:
        """Answers a request at θ, and says whether this worker has been given notice (the ray exchange)."""
        if self._faults:
            self._faults.before_computing(request)
        parameters = self._computer.own_parameters(theta)
        reply: Reply
        if isinstance(request, EvaluationRequest):
            reply = self._computer.evaluations(request, parameters)
        else:
            reply = self._computer.gradients(request, parameters)
        if self._faults:
            reply = self._faults.before_replying(reply)
        return reply, self._leaving

    def serve(self, address: Address) -> None:
        """Answers requests until the coordinator hangs up (the shared-memory exchange)."""
        from shardsgd.workers.shared_memory_exchange import serve  # noqa: PLC0415

        serve(address, self._worker, self._problem, self._computer, self._faults)

    def _take_notice(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._leaving = True


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
        actors: by worker; those that were killed or are known to have died are taken out.
        infos: of every worker that is ready.
        most: numbers of workers are below this.
    """

    def __init__(
        self,
        problem: Problem,
        shards: Sequence[Arrays],
        validation: Arrays,
        *,
        workers: int,
        environment: Mapping[str, str],
        most: int | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        faults: FaultPlan | None = None,
    ) -> None:
        """Starts the first workers and waits until each has compiled the leaf program.

        Args:
            problem: the job's mathematics.
            shards: rows of each logical shard.
            validation: held-out rows; arrays of 0 rows for none.
            workers: how many to start.
            environment: variables the workers' processes need.
            most: how many there may ever be at a time; as many as are started now if None.
            interrupted: polled while waiting.
            faults: that are to happen to workers.

        Raises:
            JobError: a worker could not be started, or the cluster is too small for the workers.
            InterruptedJobError: the user asked to stop.
        """
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < workers:
            raise JobError(f"workers.count = {workers}: each takes a CPU, and this Ray cluster has {cpus} in all")
        self.most = most or workers
        self.actors: dict[WorkerId, Any] = {}
        self.infos: dict[WorkerId, WorkerInfo] = {}
        self._ready: dict[WorkerId, ray.ObjectRef[WorkerInfo]] = {}
        self._processes: dict[WorkerId, int] = {}
        # In a list: Ray hands workers the references in it; a reference by itself it would fetch at once.
        self._rows = [ray.put(arrays) for arrays in (*shards, validation)]
        self._arguments = (problem, self._rows, faults)
        # The class's name is what `ps` shows: Ray sets the title of a process to it.
        self._class = ray.remote(type("shardsgd-worker", (GradientWorker,), {}))
        self._environment = dict(environment)
        try:
            for worker in range(workers):
                self.start(worker)
            self._await_first(interrupted)
        except BaseException:
            self.close()
            raise

    def start(self, worker: WorkerId, node: str | None = None) -> ray.ObjectRef[WorkerInfo]:
        """Starts a worker, and returns at once what its info will be once it is ready.

        Args:
            worker: its number, which no other worker has now.
            node: Ray's name of the node it must run on; any if None.
        """
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        if self._environment:
            options["runtime_env"] = {"env_vars": self._environment}
        if node is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        self.actors[worker] = self._class.options(**options).remote(worker, *self._arguments)
        self._ready[worker] = self.actors[worker].info.remote()
        return self._ready[worker]

    def check(self, worker: WorkerId) -> WorkerInfo:
        """Looks at a worker that is ready.

        Raises:
            JobError: it computes with more than one thread.
            ray.exceptions.RayError: it died.
        """
        info: WorkerInfo = ray.get(self._ready.pop(worker))
        if info.xla_threads != 1:
            raise JobError(
                f"XLA computes with {info.xla_threads} threads in a worker instead of 1: the result would depend on it; "
                "NPROC=1 must be in the workers' environment before jax is imported"
            )
        self.infos[worker] = info
        if info.node == ray.get_runtime_context().get_node_id():
            # The process itself, not its number, which might be another's by the time it is used.
            with contextlib.suppress(ProcessLookupError):
                self._processes[worker] = os.pidfd_open(info.pid)
        return info

    def kill(self, worker: WorkerId) -> None:
        """Ends a worker's process, even one that is stopped; nothing if there is none."""
        process = self._processes.pop(worker, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
        actor = self.actors.pop(worker, None)
        if actor is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)
        self._ready.pop(worker, None)
        self.infos.pop(worker, None)

    def _await_first(self, interrupted: Callable[[], bool]) -> None:
        """Until the first workers are ready. What fails or lags while others are ready is left to be started again."""
        begun = time.monotonic()
        failure: ray.exceptions.RayError | None = None
        while self._ready and not (self.infos and time.monotonic() - begun > _LAG_S):
            if interrupted():
                raise InterruptedJobError("interrupted before the first step")
            # In a cluster that others use too they may wait for their CPUs.
            ray.wait(list(self._ready.values()), num_returns=len(self._ready), timeout=_POLL_S)
            for worker in self._done():
                try:
                    self.check(worker)
                except ray.exceptions.RayError as error:
                    failure = error
                    self.kill(worker)
        for worker in list(self._ready):
            self.kill(worker)
        if not self.infos:
            assert failure is not None, "something was waited for"
            raise JobError(f"a worker could not start: {last_line(failure)}") from failure

    def _done(self) -> list[WorkerId]:
        done, _ = ray.wait(list(self._ready.values()), num_returns=len(self._ready), timeout=0)
        return [worker for worker, reference in self._ready.items() if reference in done]

    def close(self) -> None:
        """Stops the workers and frees their rows; may be called twice."""
        for worker in list(self.actors):
            self.kill(worker)
        self._rows.clear()


def first_line(error: Exception) -> str:
    """What an error of Ray says before it begins to explain."""
    return plain(error).splitlines()[0]


def last_line(error: Exception) -> str:
    """What an error of Ray ends with: the exception that was raised in the worker."""
    return plain(error).splitlines()[-1]


def plain(error: Exception) -> str:
    """An error's text without the colours that Ray puts into it."""
    return _ANSI.sub("", str(error)).strip()
