"""One training run from a validated spec to its files: the only place where data, Ray, the step loop and the files meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import jaxlib.version
import ray
from numpy.typing import NDArray

from shardsgd.coordinator.checkpoint import Origin, load_checkpoint, save_checkpoint
from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.loop import StepLoop, TrainState, initial_state
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.pacing import Pacer
from shardsgd.coordinator.records import GradientNoise, Observer, Summary, VariancePoint
from shardsgd.coordinator.report import write_report
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.stop import stop_reason
from shardsgd.coordinator.updater import Updater
from shardsgd.errors import InterruptedJobError, JobError, ResumeError
from shardsgd.model.layout import parameters_sha256
from shardsgd.model.networks import Network
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling
from shardsgd.spec import JobSpec
from shardsgd.workers.exchange import Exchange
from shardsgd.workers.pool import WorkerPool
from shardsgd.workers.ray_exchange import RayExchange
from shardsgd.workers.ray_runtime import ray_runtime
from shardsgd.workers.shared_memory_exchange import SharedMemoryExchange

_FLUSH_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        summary: as in summary.json.
        parameters: final arrays by name.
        error: why the run did not succeed; None if it did.
    """

    summary: Summary
    parameters: Mapping[str, NDArray[Any]]
    error: JobError | InterruptedJobError | None


def make_problem(spec: JobSpec, dataset: Dataset) -> Problem:
    """A resolved spec's mathematics for a dataset."""
    hidden = spec.model.hidden if spec.model.kind == "mlp" else ()
    return Problem(
        network=Network(dataset.features, hidden, dataset.outputs, spec.model.activation),
        loss=spec.objective.loss,
        sampling=Sampling(spec.seed, dataset.rows, spec.batch.size, spec.batch.shards, spec.batch.sampling),
        precision=spec.batch.precision,
        validation_rows=0 if dataset.validation is None else len(dataset.validation[0]),
    )


def open_exchange(kind: Literal["auto", "shared_memory", "ray"], pool: WorkerPool, problem: Problem) -> Exchange:
    """The transport that was asked for; "auto" is shared memory where all workers are on this node, else ray.

    Raises:
        JobError: shared memory was asked for, and a worker is on another node.
    """
    if kind == "ray":
        return RayExchange(pool)
    node = ray.get_runtime_context().get_node_id()
    elsewhere = [worker for worker, info in pool.infos.items() if info.node != node]
    if not elsewhere:
        return SharedMemoryExchange(pool, problem)
    if kind == "auto":
        return RayExchange(pool)
    raise JobError(f'workers.exchange = "shared_memory": workers {elsewhere} are on other nodes than the coordinator')


def run_training(
    spec: JobSpec,
    dataset: Dataset,
    folder: RunFolder,
    observer: Observer,
    *,
    resume: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains, or continues training, and writes the run's files.

    Args:
        spec: resolved.
        dataset: of that spec.
        folder: where files go; with `resume`, where the checkpoint is.
        observer: follows the run.
        resume: continue from the folder's newest checkpoint.
        interrupted: polled; once true, the run stops with a checkpoint.

    Raises:
        InputError: the folder cannot be used, or the checkpoint belongs to another job; nothing was started.
        JobError: the workers could not be started.
    """
    problem = make_problem(spec, dataset)
    updater = Updater(spec, problem.layout)
    origin = Origin(dataset.fingerprint, jaxlib.version.__version__, spec.workers.accelerator)
    resumed = _resumed(spec, folder, problem, updater, origin, observer) if resume else None
    with ExitStack() as stack:
        stack.enter_context(folder.open(keep_steps=resumed.step if resumed else None))
        folder.write_spec(spec)
        workers = min(spec.workers.count, spec.batch.shards)
        if workers < spec.workers.count:
            observer.note(
                f"{spec.workers.count} workers asked for, {workers} used: one for each of the {workers} shards"
            )
        observer.phase(f"starting {workers} Ray worker{'s' if workers > 1 else ''}")
        environment = stack.enter_context(
            ray_runtime(cpus=workers, object_store_bytes=_object_store_bytes(dataset, problem, workers))
        )
        validation = dataset.validation or (dataset.shards[0][0][:0], dataset.shards[0][1][:0])
        pool = WorkerPool(problem, dataset.shards, validation, workers=workers, environment=environment)
        stack.callback(pool.close)
        exchange = open_exchange(spec.workers.exchange, pool, problem)
        stack.callback(exchange.close)
        rounds = Rounds(exchange, interrupted)
        # Not before Ray has forked its processes: jax warns, and rightly, of forking once its threads run.
        state = resumed or initial_state(problem, updater, spec.seed)
        loop = StepLoop(problem, updater, exchange, rounds, time.perf_counter, state)
        run = _Run(spec, problem, loop, folder, origin, observer)
        outcome = run.to_the_end(rounds, exchange)
        observer.phase("writing the report")
        steps, validations = folder.read_metrics()
        write_report(
            folder.path / "report.html",
            spec=spec,
            summary=outcome.summary,
            steps=steps,
            validations=validations,
            steps_per_epoch=problem.sampling.steps_per_epoch,
        )
    return outcome


class _Run:
    """The steps of one session of a run, and what happens between them."""

    def __init__(
        self, spec: JobSpec, problem: Problem, loop: StepLoop, folder: RunFolder, origin: Origin, observer: Observer
    ) -> None:
        self._spec = spec
        self._problem = problem
        self._loop = loop
        self._folder = folder
        self._origin = origin
        self._observer = observer
        self._saved_at = self._flushed_at = time.monotonic()

    def to_the_end(self, rounds: Rounds, exchange: Exchange) -> Outcome:
        """Steps until a stop rule holds, the user interrupts or the job fails; always leaves a checkpoint and a summary."""
        error: JobError | InterruptedJobError | None = None
        train_loss, validation = None, None
        state: Literal["SUCCEEDED", "INTERRUPTED", "FAILED"] = "SUCCEEDED"
        try:
            reason = self._steps()
            self._observer.phase("evaluating")
            train_loss, validation = self._final_losses()
        except InterruptedJobError:
            state, reason = "INTERRUPTED", f"interrupted after {self._loop.state.step} steps"
            error = InterruptedJobError(reason)
        except JobError as failure:
            state, reason, error = "FAILED", str(failure), failure
        self._save()
        final = self._loop.state
        parameters = self._problem.layout.views(final.theta)
        self._folder.write_parameters(parameters)
        summary = Summary(
            name=self._spec.name,
            state=state,
            reason=reason,
            steps=final.step,
            epochs=final.step / self._problem.sampling.steps_per_epoch,
            train_loss=train_loss,
            validation=validation,
            parameters_sha256=parameters_sha256(parameters),
            seconds=final.seconds,
            samples_per_second=_rows_done(self._problem.sampling, final.step) / final.seconds if final.seconds else 0.0,
            workers=len(exchange.workers),
            recoveries=rounds.recoveries,
            gradient_noise=_gradient_noise(final),
        )
        self._folder.write_summary(summary)
        return Outcome(summary, parameters, error)

    def _steps(self) -> str:
        """Steps until a stop rule holds; returns it in words."""
        loop, sampling, rules = self._loop, self._problem.sampling, self._spec.stop
        pacer = Pacer(rules, sampling.steps_per_epoch)
        while True:
            if loop.epoch_is_complete:
                validation = loop.close_epoch()
                if validation is not None:
                    self._folder.append(validation)
                    self._observer.validation(validation)
            reason = stop_reason(rules, loop.state.progress, steps=loop.state.step, seconds=loop.state.seconds)
            if reason is not None:
                return reason
            self._save_if_due()
            record = loop.step()
            self._folder.append(record)
            self._observer.step(record, pacer.after(record, sampling.step_rows(record.step), loop.state.seconds))

    def _final_losses(self) -> tuple[float, dict[str, float | None] | None]:
        """L over all training rows, and the validation loss and accuracy, at the final parameters."""
        train_loss = self._loop.evaluate("train")[0] + self._loop.regularizer()
        if not self._problem.validation_rows:
            return train_loss, None
        loss, accuracy = self._loop.evaluate("validation")
        return train_loss, {"loss": loss, "accuracy": accuracy}

    def _save_if_due(self) -> None:
        now = time.monotonic()
        if now - self._flushed_at >= _FLUSH_S:
            self._folder.flush()
            self._flushed_at = now
        if now - self._saved_at >= self._spec.checkpoint.every_seconds:
            self._save()
            self._saved_at = time.monotonic()

    def _save(self) -> None:
        self._folder.flush()
        save_checkpoint(self._folder.checkpoints, self._loop.state, self._problem.layout, self._origin)


def _resumed(
    spec: JobSpec, folder: RunFolder, problem: Problem, updater: Updater, origin: Origin, observer: Observer
) -> TrainState:
    """The folder's newest state, if it belongs to this spec and this data."""
    # Only these may change without changing what the steps so far should have been.
    free = {"name", "workers", "stop", "checkpoint"}
    before, now = (_flat(given.model_dump(exclude=free)) for given in (folder.read_spec().resolved(), spec))
    changed = [f"{path} was {before[path]!r}, is {value!r}" for path, value in now.items() if before[path] != value]
    if changed:
        raise ResumeError(f"--resume {folder.path}: the run there is another job: " + "; ".join(changed))
    state, saved = load_checkpoint(folder.checkpoints, problem.layout, updater.state_structure(problem.layout.zeros()))
    if saved.data_fingerprint != origin.data_fingerprint:
        raise ResumeError(f"--resume {folder.path}: the data of {spec.data.source} has changed since")
    if saved != origin:
        observer.note(
            f"resuming on jaxlib {origin.jaxlib}, {origin.device} what was begun on jaxlib {saved.jaxlib}, {saved.device}: "
            "the bits may differ from an uninterrupted run"
        )
    return state


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted paths."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _object_store_bytes(dataset: Dataset, problem: Problem, workers: int) -> int:
    """Room for all rows, and for two steps' parameters and gradient sums."""
    pairs = [*dataset.shards, *([dataset.validation] if dataset.validation else [])]
    rows = sum(x.nbytes + y.nbytes for x, y in pairs)
    subtrees = problem.sampling.shards + workers
    return rows + 2 * problem.layout.nbytes * (1 + min(subtrees, 2 * workers)) + 64 * 2**20


def _rows_done(sampling: Sampling, steps: int) -> int:
    """Training rows used in the first `steps` steps."""
    if sampling.kind == "replacement":
        return steps * sampling.batch
    epochs, rest = divmod(steps, sampling.steps_per_epoch)
    return epochs * sampling.rows + rest * sampling.batch


def _gradient_noise(state: TrainState) -> GradientNoise:
    noise = state.noise
    points = tuple(VariancePoint(*point) for point in noise.variance_by_rows())
    return GradientNoise(noise.smoothed_trace, noise.smoothed_norm_squared, noise.noise_scale, points)
