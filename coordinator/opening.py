"""Opening what computes a job: Ray, workers, an exchange to them, and rounds over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import ray

from shardsgd.coordinator.control import Control
from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.plan import Patience, plan
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.staffing import Limits
from shardsgd.errors import JobError
from shardsgd.formatting import plural
from shardsgd.model.problem import Problem
from shardsgd.model.state import state_buffers
from shardsgd.model.tree import cover
from shardsgd.spec import JobSpec
from shardsgd.workers.exchange import Exchange
from shardsgd.workers.faults import FaultPlan
from shardsgd.workers.idle_workers import IdleWorkers
from shardsgd.workers.pool import WorkerPool
from shardsgd.workers.ray_exchange import RayExchange
from shardsgd.workers.ray_runtime import ray_runtime
from shardsgd.workers.shared_memory import check_memory
from shardsgd.workers.shared_memory_exchange import SharedMemoryExchange

# A worker that takes so much longer to start than the first ones did will not.
_START_FACTOR, _LEAST_START_S = 5, 10.0
# Where the first ones were warm, which says nothing of how long another process takes.
_LEAST_COLD_START_S = 60.0


@contextmanager
def opened_rounds(
    spec: JobSpec,
    problem: Problem,
    dataset: Dataset,
    *,
    shares: int,
    each: str,
    phase: Callable[[str], None],
    note: Callable[[str], None],
    control: Control,
    losses: int = 0,
    faults: FaultPlan | None = None,
    idle: IdleWorkers | None = None,
) -> Iterator[tuple[Exchange, Rounds]]:
    """An exchange to a job's workers, and rounds over it, for the length of a block.

    Args:
        spec: of the job, resolved; says how many workers there are and how long they are waited for.
        problem: what they compute.
        dataset: dealt to the problem's shards.
        shares: workers beyond so many would have nothing to do, and are not started.
        each: what there are so many of, for the note that says so.
        phase: told that workers are started.
        note: told what the user should know.
        control: stops the job, or changes how many workers it has.
        losses: workers lost in earlier sessions.
        faults: that are to happen to workers; for tests.
        idle: workers of the Ray that this process is connected to, to begin with and to be given back.

    Raises:
        InterruptedJobError: interrupted while the workers started.
        JobError: the workers could not be started.
    """
    workers = min(spec.workers.count, shares)
    most = min(spec.workers.max or workers, shares)
    if workers < spec.workers.count:
        note(f"{spec.workers.count} workers asked for, {workers} used: one for each of the {workers} {each}")
    phase(f"starting {plural(workers, 'Ray worker')}")
    with ExitStack() as stack:
        if idle is not None:
            environment = idle.environment
        else:
            store_bytes = object_store_bytes(dataset, problem, most)
            environment = stack.enter_context(ray_runtime(cpus=most, object_store_bytes=store_bytes))
        validation = dataset.validation or (dataset.shards[0][0][:0], dataset.shards[0][1][:0])
        begun = time.monotonic()
        pool = WorkerPool(
            problem,
            dataset.shards,
            validation,
            workers=workers,
            most=most,
            environment=environment,
            interrupted=control.interrupted,
            faults=faults,
            idle=idle,
        )
        stack.callback(pool.close)
        exchange = open_exchange(spec.workers.exchange, pool, problem, control.interrupted)
        stack.callback(exchange.close)
        limits = Limits(
            least=min(spec.workers.min, workers),
            most=most,
            wait_seconds=spec.workers.wait_seconds,
            losses=spec.workers.max_losses,
            start_seconds=max(
                _LEAST_START_S if idle is None else _LEAST_COLD_START_S, _START_FACTOR * (time.monotonic() - begun)
            ),
        )
        members = Members(
            exchange, limits, time.monotonic, target=workers, wanted=lambda: control.workers, losses=losses
        )
        yield (
            exchange,
            Rounds(
                exchange,
                members,
                time.monotonic,
                interrupted=control.interrupted,
                patience=Patience(hang_seconds=spec.workers.hang_seconds),
                verify=spec.workers.verify,
            ),
        )


def open_exchange(
    kind: Literal["auto", "shared_memory", "ray"],
    pool: WorkerPool,
    problem: Problem,
    interrupted: Callable[[], bool] = lambda: False,
) -> Exchange:
    """The transport that was asked for; "auto" is shared memory where all workers are on this node, else ray.

    Raises:
        JobError: shared memory was asked for, and a worker is on another node; or memory is short.
        InterruptedJobError: interrupted while it was opened.
    """
    if kind == "ray":
        return RayExchange(pool, problem)
    node = ray.get_runtime_context().get_node_id()
    elsewhere = sorted(worker for worker, info in pool.infos.items() if info.node != node)
    if not elsewhere:
        layout = problem.layout
        buffers = state_buffers(problem) + _sums(problem, pool.most)
        check_memory(buffers * layout.nbytes, f"{buffers} buffers of {layout.parameters:,} parameters")
        return SharedMemoryExchange(pool, problem, interrupted)
    if kind == "auto":
        return RayExchange(pool, problem)
    raise JobError(f'workers.exchange = "shared_memory": workers {elsewhere} are on other nodes than the coordinator')


def object_store_bytes(dataset: Dataset, problem: Problem, workers: int) -> int:
    """Room for all rows, and for two steps' parameters and gradient sums."""
    pairs = [*dataset.shards, *([dataset.validation] if dataset.validation else [])]
    rows = sum(x.nbytes + y.nbytes for x, y in pairs)
    return rows + 2 * problem.layout.nbytes * (1 + _sums(problem, workers)) + 64 * 2**20


def _sums(problem: Problem, workers: int) -> int:
    """How many gradient sums the workers leave in a step."""
    shards = problem.sampling.shards
    shares = plan([(0, shards)], range(workers)).values()
    return sum(len(cover(start, stop, shards)) for ranges in shares for start, stop in ranges)
