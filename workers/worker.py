"""The Ray actor that computes: one worker, of one job after the other."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from numpy.typing import NDArray

from shardsgd.errors import JobError
from shardsgd.model.layout import Flat
from shardsgd.model.networks import Network
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    DistancesRequest,
    EvaluationRequest,
    GradientRequest,
    Reply,
    RowDistancesRequest,
    WorkerId,
)
from shardsgd.workers.faults import FaultInjector, FaultPlan
from shardsgd.workers.handover import Address

if TYPE_CHECKING:
    from shardsgd.workers.compute import LeafComputer

Arrays = tuple[NDArray[Any], NDArray[Any]]

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


_SMALLEST = Problem(
    network=Network(features=1, hidden=(1,), outputs=2, activation="relu"),
    loss="softmax_cross_entropy",
    sampling=Sampling(seed=0, rows=1, batch=1, shards=1, kind="shuffle"),
    precision="float32",
    validation_rows=0,
)


@dataclass
class Notice:
    """Whether a process has been given notice."""

    given: bool = False


class _Job(NamedTuple):
    """What a worker has been prepared for."""

    worker: WorkerId
    problem: Problem
    computer: LeafComputer
    faults: FaultInjector | None


class GradientWorker:
    """A Ray actor that computes leaves. Owns no state that cannot be rebuilt: any worker can answer any request.

    It is idle until it is prepared for a job, and again once it has been retired from it.
    """

    def __init__(self) -> None:
        # Imported here, in the worker's process: jax reads its environment when it is imported.
        from shardsgd.workers.compute import configure_jax  # noqa: PLC0415
        from shardsgd.workers.programs import Programs  # noqa: PLC0415

        configure_jax()
        self._programs = Programs()
        self._job: _Job | None = None
        self._notice = Notice()
        # SIGTERM is notice (preemption, a node that is drained): what was asked is answered, nothing more.
        signal.signal(signal.SIGTERM, self._take_notice)
        # What is there by now stays; `retire` need not look through it.
        gc.freeze()

    def warm_up(self) -> tuple[int, str]:
        """Compiles a leaf program of no use: the first one of a process takes 0.15 s longer than all that follow.

        Returns:
            Number of its process, and Ray's name of the node.
        """
        from shardsgd.workers.compute import LeafComputer  # noqa: PLC0415

        LeafComputer(_SMALLEST, ObjectStoreRows(())).warm_up()
        return _place()

    def prepare(
        self, worker: WorkerId, problem: Problem, rows: Sequence[ray.ObjectRef[Arrays]], faults: FaultPlan | None
    ) -> WorkerInfo:
        """Makes this a worker of a job; answers once it is ready to compute.

        Args:
            worker: its number in the job.
            problem: the job's mathematics.
            rows: of each shard, and last the held-out rows.
            faults: that are to happen to workers.
        """
        from shardsgd.workers.compute import LeafComputer, keep_freed_memory  # noqa: PLC0415

        self._job = None
        injector = FaultInjector(faults, worker) if faults else None
        if injector:
            injector.started()
        computer = LeafComputer(problem, ObjectStoreRows(rows), worker, self._programs)
        computer.warm_up()
        # Not before: what compiling took, and a θ of zeros, would be kept too.
        keep_freed_memory()
        self._job = _Job(worker, problem, computer, injector)
        names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
        threads = sum(name == _XLA_THREAD_NAME for name in names)
        return WorkerInfo(*_place(), threads)

    def retire(self) -> int:
        """Forgets the job; answers how many bytes of memory this process still has for itself alone.

        Raises:
            JobError: it has been given notice.
        """
        from shardsgd.workers.compute import give_back_freed_memory  # noqa: PLC0415

        if self._notice.given:
            raise JobError("it has been given notice")
        self._job = None
        gc.collect()
        give_back_freed_memory()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)

    def compute(
        self,
        request: GradientRequest | EvaluationRequest | DistancesRequest,
        theta: Flat,
        gradient: Flat | None = None,
    ) -> tuple[Reply, bool]:
        """Answers a request at θ, and says whether this worker has been given notice (the ray exchange).

        Args:
            request: what to compute.
            theta: θ.
            gradient: g, where the request is for distances from it.
        """
        job = self._prepared()
        if job.faults:
            job.faults.before_computing(request)
        parameters = job.computer.own_parameters(theta)
        reply: Reply
        if isinstance(request, EvaluationRequest):
            reply = job.computer.evaluations(request, parameters)
        elif isinstance(request, RowDistancesRequest | BatchDistancesRequest):
            assert gradient is not None, "the exchange sends it along"
            reply = job.computer.distances(request, parameters, gradient)
        else:
            reply = job.computer.gradients(request, parameters)
        if job.faults:
            reply = job.faults.before_replying(reply)
        return reply, self._notice.given

    def serve(self, address: Address) -> None:
        """Answers requests until the coordinator hangs up (the shared-memory exchange)."""
        from shardsgd.workers.shared_memory_exchange import serve  # noqa: PLC0415

        job = self._prepared()
        serve(address, job.worker, job.problem, job.computer, job.faults, self._notice)

    def _prepared(self) -> _Job:
        if self._job is None:
            raise JobError("it is not prepared for a job")
        return self._job

    def _take_notice(self, *_: object) -> None:
        self._notice.given = True
        if self._job is None:
            # Nobody has asked anything.
            os._exit(0)


def _place() -> tuple[int, str]:
    return os.getpid(), ray.get_runtime_context().get_node_id()


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
