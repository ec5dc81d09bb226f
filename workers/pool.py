"""The workers of one job: Ray actors, new or idle until then, that are replaced where they are lost, and let go at its end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shardsgd.errors import InterruptedJobError, JobError
from shardsgd.model.problem import Problem
from shardsgd.workers.exchange import WorkerId
from shardsgd.workers.faults import FaultPlan
from shardsgd.workers.idle_workers import Actor, IdleWorkers, end, new_actor, process_of
from shardsgd.workers.worker import Arrays, WorkerInfo

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

# How late a Ctrl-C may be noticed while workers start.
_POLL_S = 0.1
# How long a job waits for its other first workers once one is ready.
_LAG_S = 60.0


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
        idle: IdleWorkers | None = None,
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
            idle: workers to begin with, and where those go that are well when the job ends. Without it all are started for
                this job and end with it.

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
        self._problem = problem
        self._faults = faults
        self._environment = dict(environment)
        self._idle = idle
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
        kept = self._idle.take(node) if self._idle is not None else None
        if kept is not None:
            self.actors[worker] = kept.handle
            if kept.process is not None:
                self._processes[worker] = kept.process
        else:
            scheduling = NodeAffinitySchedulingStrategy(node, soft=False) if node is not None else None
            self.actors[worker] = new_actor(self._environment, scheduling)
        self._ready[worker] = self.actors[worker].prepare.remote(worker, self._problem, self._rows, self._faults)
        return self._ready[worker]

    def check(self, worker: WorkerId) -> WorkerInfo:
        """Looks at a worker that is ready.

        Raises:
            JobError: it computes with more than one thread.
            ray.exceptions.RayError: it died, or could not be prepared.
        """
        info: WorkerInfo = ray.get(self._ready.pop(worker))
        if info.xla_threads != 1:
            raise JobError(
                f"XLA computes with {info.xla_threads} threads in a worker instead of 1: the result would depend on it; "
                "NPROC=1 must be in the workers' environment before jax is imported"
            )
        self.infos[worker] = info
        if worker not in self._processes:
            process = process_of(info.pid, info.node)
            if process is not None:
                self._processes[worker] = process
        return info

    def kill(self, worker: WorkerId) -> None:
        """Ends a worker's process, even one that is stopped; nothing if there is none."""
        process, actor = self._processes.pop(worker, None), self.actors.pop(worker, None)
        if actor is not None:
            end(actor, process)
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
        """Gives ready workers back, if they came from those that are idle, stops all others, and frees their rows.

        Whoever had them compute must have hung up. May be called twice.
        """
        # First: a worker that has been given back must not keep this job's rows in the object store.
        self._rows.clear()
        if self._idle is not None:
            ready = [worker for worker in self.actors if worker in self.infos]
            self._idle.keep([self._given_up(worker) for worker in ready])
        for worker in list(self.actors):
            self.kill(worker)

    def _given_up(self, worker: WorkerId) -> Actor:
        return Actor(self.actors.pop(worker), self.infos.pop(worker).node, self._processes.pop(worker, None))


def first_line(error: Exception) -> str:
    """What an error of Ray says before it begins to explain."""
    return plain(error).splitlines()[0]


def last_line(error: Exception) -> str:
    """What an error of Ray ends with: the exception that was raised in the worker."""
    return plain(error).splitlines()[-1]


def plain(error: Exception) -> str:
    """An error's text without the colours that Ray puts into it."""
    return _ANSI.sub("", str(error)).strip()
