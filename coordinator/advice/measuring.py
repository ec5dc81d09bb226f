"""What advice is made from: the noise scale of a run, and the step times of short runs of the same job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from shardsgd.coordinator.advice.decide import Advice, StepTime, decide
from shardsgd.coordinator.advice.earlier_run import earlier_noise
from shardsgd.coordinator.advice.law import NoiseScale, noise_scale
from shardsgd.coordinator.advice.sizes import batch_sizes, worker_counts
from shardsgd.coordinator.control import Control
from shardsgd.coordinator.data import Dataset, load_dataset
from shardsgd.coordinator.opening import object_store_bytes
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.records import Incident, Observer, Pace, Silent, StepRecord, Summary, ValidationRecord
from shardsgd.coordinator.training import make_problem, run_training
from shardsgd.errors import InputError, InterruptedJobError, JobError
from shardsgd.formatting import count, duration, plural
from shardsgd.spec import JobSpec, Stop
from shardsgd.workers.idle_workers import IdleWorkers
from shardsgd.workers.ray_runtime import ray_runtime

# However long an epoch takes.
_LONGEST_NOISE_S = 60.0
# Each choice has two turns, the second in the opposite order: a machine that is busy for a while shows in the quartiles.
_TURNS = 2
_TURN_S, _LEAST_STEPS, _LONGEST_TURN_S = 0.75, 10, 30.0
# They meet cold caches and pages that nobody has touched.
_FIRST_STEPS = 3


def measure(
    spec: JobSpec,
    *,
    at: Path | None,
    batches: Sequence[int] | None,
    workers: Sequence[int] | None,
    seconds: float,
    observer: Observer,
    interrupted: Callable[[], bool],
) -> Advice:
    """Measures what is not known yet, and decides.

    Args:
        spec: of the job, as the user wrote it: `batch.shards` may exceed a batch size.
        at: folder of an earlier run of the job, whose noise scale is taken.
        batches: sizes to time beside the job's own.
        workers: numbers of workers to time beside the job's own.
        seconds: of training, for the noise scale; an epoch at least.
        observer: follows.
        interrupted: polled.

    Raises:
        InputError: an argument or the data is wrong; nothing was started.
        InterruptedJobError: interrupted; nothing is left.
        JobError: a run failed.
    """
    resolved = spec.resolved()
    _check("--workers", workers, 1024, "")
    earlier = None if at is None else earlier_noise(at, resolved)
    dataset = load_dataset(resolved)
    _check("--batches", batches, dataset.rows, ", the training rows")
    present = resolved.batch.size, min(resolved.workers.count, resolved.batch.shards)
    if interrupted():
        raise _interrupted()

    counts = sorted({spec.workers.count, *(workers or worker_counts(spec.workers.count))}, reverse=True)
    store_bytes = object_store_bytes(dataset, make_problem(resolved, dataset), counts[0])
    with ray_runtime(cpus=counts[0], object_store_bytes=store_bytes) as environment:
        idle = IdleWorkers(environment)
        try:
            trials = _Trials(spec, dataset, idle, interrupted)
            noise, noise_from = earlier or trials.noise(seconds, observer)
            sizes = {present[0], *(batches or batch_sizes(present[0], dataset.rows, noise.rows))}
            # Many workers first: they are then there for the runs with fewer.
            pairs = list(dict.fromkeys(trials.able(batch, many) for many in counts for batch in sorted(sizes)))
            seconds_of: dict[tuple[int, int], list[float]] = {pair: [] for pair in pairs}
            turns = [pair for turn in range(_TURNS) for pair in (pairs if turn % 2 == 0 else reversed(pairs))]
            for number, pair in enumerate(turns, start=1):
                what = f"B = {count(pair[0])} on {plural(pair[1], 'worker')}"
                observer.phase(f"timing steps: {what} ({number} of {len(turns)})")
                seconds_of[pair] += trials.step_seconds(*pair)
        finally:
            idle.close()
    times = {pair: StepTime.of(*pair, of_pair) for pair, of_pair in seconds_of.items()}
    return decide(noise, noise_from, list(times.values()), times[present], spec.optimizer.learning_rate)


def enough_noise(step_seconds: Sequence[float], epochs: int, wanted: float) -> bool:
    """Whether a run has told its noise scale: an epoch and the time that was wanted are over, or a minute.

    Args:
        step_seconds: of each step so far.
        epochs: done.
        wanted: seconds of steps.
    """
    spent = sum(step_seconds)
    return spent >= max(_LONGEST_NOISE_S, wanted) or (epochs >= 1 and spent >= wanted)


def enough_steps(step_seconds: Sequence[float]) -> bool:
    """Whether a turn is over: ten steps and 0.75 seconds after the first steps, or half a minute."""
    counted = step_seconds[_FIRST_STEPS:]
    spent = sum(counted)
    return spent >= _LONGEST_TURN_S or (len(counted) >= _LEAST_STEPS and spent >= _TURN_S)


class _Trials:
    """Short runs of one job, on workers that stay warm from one to the next; of their files nothing is kept."""

    def __init__(self, spec: JobSpec, dataset: Dataset, idle: IdleWorkers, interrupted: Callable[[], bool]) -> None:
        self._spec = spec
        self._idle = idle
        self._interrupted = interrupted
        self._datasets = {spec.resolved().batch.shards: dataset}

    def able(self, batch: int, workers: int) -> tuple[int, int]:
        """The batch size, and how many of so many workers can compute at it: each needs a shard."""
        return batch, min(workers, self._with(batch, workers).batch.shards)

    def noise(self, seconds: float, observer: Observer) -> tuple[NoiseScale, str]:
        """The noise scale of the job's own steps, and where it is from, in words."""
        spec = self._spec.resolved()
        watch = _Watch(lambda times, epochs: enough_noise(times, epochs, seconds), observer)
        summary = self._run(spec, watch)
        took = duration(sum(watch.step_seconds))
        told = noise_scale(summary.gradient_noise)
        return (
            told,
            f"{plural(summary.steps, 'step')} at B = {count(spec.batch.size)} ({took} from the start of the job)",
        )

    def step_seconds(self, batch: int, workers: int) -> list[float]:
        """Of the steps of a turn with a batch size on so many workers."""
        spec = self._with(batch, workers)
        watch = _Watch(lambda times, _: enough_steps(times), Silent())
        self._run(spec, watch)
        return watch.step_seconds[_FIRST_STEPS:] or watch.step_seconds

    def _with(self, batch: int, workers: int) -> JobSpec:
        """The job with another batch size and number of workers, to be timed."""
        spec = self._spec
        # Times do not depend on the rate, and nothing may diverge.
        rate = spec.optimizer.learning_rate * min(1.0, batch / spec.batch.size)
        changes = {
            "batch": spec.batch.model_copy(update={"size": batch}),
            "workers": spec.workers.model_copy(update={"count": workers, "min": 1, "max": None}),
            "optimizer": spec.optimizer.model_copy(update={"learning_rate": rate}),
            "stop": Stop(seconds=2 * _LONGEST_TURN_S),
        }
        return spec.model_copy(update=changes).resolved()

    def _run(self, spec: JobSpec, watch: _Watch) -> Summary:
        control = Control(lambda: watch.has_enough or self._interrupted())
        with TemporaryDirectory(prefix="shardsgd-advice-") as folder:
            try:
                outcome = run_training(
                    spec,
                    self._dataset(spec),
                    RunFolder(Path(folder)),
                    watch,
                    control=control,
                    idle=self._idle,
                    report=False,
                )
            except InterruptedJobError:
                # While workers started. Its words are those of a run that could be resumed.
                raise _interrupted() from None
        if self._interrupted():
            raise _interrupted()
        if isinstance(outcome.error, JobError):
            raise outcome.error
        return outcome.summary

    def _dataset(self, spec: JobSpec) -> Dataset:
        """The rows, dealt to as many shards as the spec has."""
        shards = spec.batch.shards
        if shards not in self._datasets:
            self._datasets[shards] = load_dataset(spec)
        return self._datasets[shards]


class _Watch:
    """An observer that has a run end once it has seen enough of it.

    Attributes:
        step_seconds: of each step so far.
        has_enough: whether that is enough.
    """

    def __init__(self, enough: Callable[[Sequence[float], int], bool], shown: Observer) -> None:
        self.step_seconds: list[float] = []
        self.has_enough = False
        self._enough = enough
        self._shown = shown

    def phase(self, text: str) -> None:
        """Passes it on."""
        self._shown.phase(text)

    def note(self, text: str) -> None:
        """Passes it on."""
        self._shown.note(text)

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Passes it on, without what is left: the run ends before its own time."""
        self.step_seconds.append(record.step_seconds)
        self.has_enough = self._enough(self.step_seconds, record.epoch)
        self._shown.step(record, replace(pace, fraction_done=None, eta_seconds=None))

    def validation(self, record: ValidationRecord) -> None:
        """Passes it on."""
        self._shown.validation(record)

    def incident(self, record: Incident) -> None:
        """Passes it on."""
        self._shown.incident(record)


def _check(option: str, values: Iterable[int] | None, most: int, of_what: str) -> None:
    for value in values or ():
        if not 1 <= value <= most:
            raise InputError(f"{option} {value}: must be an integer from 1 to {most}{of_what}")


def _interrupted() -> InterruptedJobError:
    return InterruptedJobError("interrupted: no advice, and nothing is left of the measurements")
