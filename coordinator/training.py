"""One training run from a validated spec to its files: the only place where data, Ray, the step loop and the files meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import jaxlib.version
import numpy as np
import ray

from shardsgd.coordinator.checkpoint import Origin
from shardsgd.coordinator.control import Control
from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.opening import opened_rounds
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.records import Observer
from shardsgd.coordinator.resume import check_same_job, resumed_state
from shardsgd.coordinator.session import Outcome, Session
from shardsgd.errors import JobError
from shardsgd.model.networks import Network
from shardsgd.model.optimizers import Momentum, Sgd
from shardsgd.model.problem import Problem
from shardsgd.model.regularizer import Regularizer
from shardsgd.model.sampling import Sampling
from shardsgd.spec import JobSpec
from shardsgd.workers.faults import FaultPlan
from shardsgd.workers.idle_workers import IdleWorkers
from shardsgd.workers.pool import first_line


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
    report: bool = True,
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
        report: write report.html.

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
            return _run_in(folder, spec, dataset, observer, resume, control, faults, idle, about_to_step, report, stack)
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
    report: bool,
    stack: ExitStack,
) -> Outcome:
    """The run, its folder being locked; what it opens is closed with `stack`."""
    problem = make_problem(spec, dataset)
    origin = Origin(dataset.fingerprint, jaxlib.version.__version__, np.__version__, spec.workers.accelerator)
    state = resumed_state(spec, folder, problem, origin, observer) if resume else None
    if not resume and folder.unfinished:
        observer.note(f"{folder.path} held an unfinished run, which --resume would have continued; it is replaced")
    stack.enter_context(folder.record(spec, resumed=state))

    exchange, rounds = stack.enter_context(
        opened_rounds(
            spec,
            problem,
            dataset,
            shares=spec.batch.shards,
            each="shards",
            phase=observer.phase,
            note=observer.note,
            control=control,
            losses=state.recoveries if state else 0,
            faults=faults,
            idle=idle,
        )
    )
    begin = state or initial_state(problem, spec.seed)
    loop = StepLoop(problem, learning_rates(spec), exchange, rounds, time.perf_counter, begin)
    # From here on θ lies in the exchange's memory, and only there.
    del state, begin
    about_to_step()
    outcome = Session(spec, problem, loop, rounds, folder, origin, observer).run()
    if not report:
        return outcome

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
