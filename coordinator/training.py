"""One training run from a validated spec to its files: the only place where data, Ray, the step loop and the files meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal

import jaxlib.version
import numpy as np
import ray

from shardsgd.coordinator.checkpoint import Origin
from shardsgd.coordinator.control import Control
from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.plan import Patience, plan
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.records import Observer
from shardsgd.coordinator.resume import check_same_job, resumed_state
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.session import Outcome, Session
from shardsgd.coordinator.staffing import Limits
from shardsgd.errors import JobError
from shardsgd.formatting import plural
from shardsgd.model.networks import Network
from shardsgd.model.optimizers import Momentum, Sgd
from shardsgd.model.problem import Problem
from shardsgd.model.regularizer import Regularizer
from shardsgd.model.sampling import Sampling
from shardsgd.model.state import state_buffers
from shardsgd.model.tree import cover
from shardsgd.spec import JobSpec
from shardsgd.workers.exchange import Exchange
from shardsgd.workers.faults import FaultPlan
from shardsgd.workers.idle_workers import IdleWorkers
from shardsgd.workers.pool import WorkerPool, first_line
from shardsgd.workers.ray_exchange import RayExchange
from shardsgd.workers.ray_runtime import ray_runtime
from shardsgd.workers.shared_memory import check_memory
from shardsgd.workers.shared_memory_exchange import SharedMemoryExchange

# A worker that takes so much longer to start than the first ones did will not.
_START_FACTOR, _LEAST_START_S = 5, 10.0
# Where the first ones were warm, which says nothing of how long another process takes.
_LEAST_COLD_START_S = 60.0


def make_problem(spec: JobSpec, dataset: Dataset) -> Problem:
    """A resolved spec's mathematics for a dataset."""
    hidden = spec.model.hidden if spec.model.kind == "mlp" else ()
    return Problem(
        network=Network(dataset.features, hidden, dataset.outputs, spec.model.activation),
        loss=spec.objective.loss,
        sampling=Sampling(spec.seed, dataset.rows, spec.batch.size, spec.batch.shards, spec.batch.sampling),
        precision=spec.batch.precision,
        validation_rows=0 if dataset.validation is None else len(dataset.validation[0]),
        optimizer=Momentum(spec.optimizer.momentum) if spec.optimizer.kind == "momentum" else Sgd(),
        regularizer=Regularizer(spec.objective.l1, spec.objective.l2),
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


def run_training(
    spec: JobSpec,
    dataset: Dataset,
    folder: RunFolder,
    observer: Observer,
    *,
    resume: bool = False,
    take_over: bool = False,
    control: Control,
    faults: FaultPlan | None = None,
    idle: IdleWorkers | None = None,
    about_to_step: Callable[[], None] = lambda: None,
) -> Outcome:
    """Trains, or continues training, and writes the run's files.

    Args:
        spec: resolved.
        dataset: of that spec.
        folder: where files go; with `resume`, where the checkpoint is.
        observer: follows the run.
        resume: continue from the folder's newest checkpoint.
        take_over: take the folder from a session that still runs, or hangs.
        control: stops the run, or changes how many workers it has.
        faults: that are to happen to workers; for tests.
        idle: workers of the Ray that this process is connected to, to begin with and to be given back.
        about_to_step: called once, when the workers are ready, the folder is this session's own, and its metrics.jsonl holds
            what the run goes on from.

    Raises:
        InputError: the folder cannot be used, or the run to resume is another job's; nothing was started.
        InterruptedJobError: interrupted while the workers started.
        TakenOverError: another session has taken the folder over; this one has left it alone since.
        JobError: the workers could not be started, or Ray or the disk failed.
    """
    if resume:
        check_same_job(spec, folder)
    with ExitStack() as stack:
        stack.enter_context(folder.lock(take_over=take_over))
        try:
            return _run_in(folder, spec, dataset, observer, resume, control, faults, idle, about_to_step, stack)
        except ray.exceptions.RayError as error:
            raise JobError(f"Ray failed: {first_line(error)}") from error
        except OSError as error:
            raise JobError(f"the run's files could not be written: {error}") from error


def _run_in(
    folder: RunFolder,
    spec: JobSpec,
    dataset: Dataset,
    observer: Observer,
    resume: bool,
    control: Control,
    faults: FaultPlan | None,
    idle: IdleWorkers | None,
    about_to_step: Callable[[], None],
    stack: ExitStack,
) -> Outcome:
    """The run, its folder being locked; what it opens is closed with `stack`."""
    problem = make_problem(spec, dataset)
    origin = Origin(dataset.fingerprint, jaxlib.version.__version__, np.__version__, spec.workers.accelerator)
    state = resumed_state(spec, folder, problem, origin, observer) if resume else None
    if not resume and folder.unfinished:
        observer.note(f"{folder.path} held an unfinished run, which --resume would have continued; it is replaced")
    stack.enter_context(folder.record(spec, resumed=state))

    workers = min(spec.workers.count, spec.batch.shards)
    most = min(spec.workers.max or workers, spec.batch.shards)
    if workers < spec.workers.count:
        observer.note(f"{spec.workers.count} workers asked for, {workers} used: one for each of the {workers} shards")
    observer.phase(f"starting {plural(workers, 'Ray worker')}")
    if idle is not None:
        environment = idle.environment
    else:
        store_bytes = _object_store_bytes(dataset, problem, most)
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

    begin = state or initial_state(problem, spec.seed)
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
        exchange,
        limits,
        time.monotonic,
        target=workers,
        wanted=lambda: control.workers,
        losses=begin.recoveries,
    )
    rounds = Rounds(
        exchange,
        members,
        time.monotonic,
        interrupted=control.interrupted,
        patience=Patience(hang_seconds=spec.workers.hang_seconds),
        verify=spec.workers.verify,
    )
    loop = StepLoop(problem, learning_rates(spec), exchange, rounds, time.perf_counter, begin)
    # From here on θ lies in the exchange's memory, and only there.
    del state, begin
    about_to_step()
    outcome = Session(spec, problem, loop, rounds, folder, origin, observer).run()

    observer.phase("writing the report")
    # Imported here: matplotlib takes a third of a second, which nobody should wait for before the first step.
    from shardsgd.coordinator.report import write_report  # noqa: PLC0415

    metrics = folder.read_metrics()
    try:
        write_report(
            folder.path / "report.html",
            spec=spec,
            summary=outcome.summary,
            steps=metrics.steps,
            validations=metrics.validations,
            steps_per_epoch=problem.sampling.steps_per_epoch,
            incidents=metrics.incidents,
            guard=folder.guard,
        )
    except OSError as error:
        # The run itself is complete on disk.
        observer.note(f"report.html could not be written: {error}")
    return outcome


def _object_store_bytes(dataset: Dataset, problem: Problem, workers: int) -> int:
    """Room for all rows, and for two steps' parameters and gradient sums."""
    pairs = [*dataset.shards, *([dataset.validation] if dataset.validation else [])]
    rows = sum(x.nbytes + y.nbytes for x, y in pairs)
    return rows + 2 * problem.layout.nbytes * (1 + _sums(problem, workers)) + 64 * 2**20


def _sums(problem: Problem, workers: int) -> int:
    """How many gradient sums the workers leave in a step."""
    shards = problem.sampling.shards
    shares = plan([(0, shards)], range(workers)).values()
    return sum(len(cover(start, stop, shards)) for ranges in shares for start, stop in ranges)
