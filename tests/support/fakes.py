"""An exchange without Ray, sockets or processes that computes real leaves and loses workers on declared occasions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.training import make_problem
from shardsgd.model.problem import Problem
from shardsgd.model.state import Updater
from shardsgd.spec import JobSpec
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import (
    EvaluationRequest,
    Event,
    Exchange,
    GradientRequest,
    Request,
    RequestFailed,
    UpdateRequest,
    WorkerLost,
)


def toy_dataset(*, rows=103, features=5, outputs=3, shards=4, validation=20, regression=False, seed=0) -> Dataset:
    """Random rows that a linear model explains in part, dealt to shards."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows + validation, features))
    scores = x @ random.normal(size=(features, outputs)) + random.normal(size=(rows + validation, outputs))
    y = scores[:, 0] if regression else scores.argmax(axis=1).astype(np.int32)
    train = slice(0, rows)
    dealt = tuple((x[train][shard::shards].copy(), y[train][shard::shards].copy()) for shard in range(shards))
    return Dataset(
        shards=dealt,
        validation=(x[rows:], y[rows:]) if validation else None,
        rows=rows,
        features=features,
        outputs=1 if regression else outputs,
        classes=() if regression else tuple("abcdefghij"[:outputs]),
        feature_names=tuple(f"x{number}" for number in range(features)),
        mean=None,
        scale=None,
        fingerprint="toy",
    )


class ArrayRows:
    """Rows of a dataset, as a worker sees them."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def shard(self, number):
        return self._dataset.shards[number]

    def validation(self):
        return self._dataset.validation


def leaf_rows(problem: Problem, dataset: Dataset, shard: int, step: int):
    """(x, y, w) of a leaf, row by row from the sampling; rows that it lacks are 0."""
    count = problem.sampling.leaf_rows
    x = np.zeros((count, problem.network.features), problem.parameter_dtype)
    y, w = np.zeros(count, problem.label_dtype), np.zeros(count, problem.parameter_dtype)
    for i, (source, row) in enumerate(zip(*problem.sampling.leaf(shard, step), strict=True)):
        x[i], y[i], w[i] = dataset.shards[source][0][row], dataset.shards[source][1][row], 1
    return x, y, w


@dataclass(frozen=True)
class Fault:
    """Something that happens instead of, or beside, the answer of `worker` in `step`."""

    kind: Literal["kill", "raise", "answer twice", "answer late"]
    worker: int
    step: int
    during: type[Request] = GradientRequest


@dataclass
class InProcessExchange:
    """The exchange port in one process.

    Attributes:
        fired: how often each fault happened.
        reverse: deliver answers in the opposite order of the requests.
    """

    problem: Problem
    dataset: Dataset
    count: int
    faults: Sequence[Fault] = ()
    reverse: bool = False
    updates: bool = False
    fired: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        updater = Updater(self.problem)
        self.states = (updater.buffers(), updater.buffers())
        self.sums = {}
        self.alive = list(range(self.count))
        self.computer = LeafComputer(self.problem, ArrayRows(self.dataset))
        self.queue: list[tuple[int, Request]] = []
        self.late: list[Event] = []
        self.sent: list[tuple[int, Request]] = []

    @property
    def workers(self):
        return self.alive

    def publish(self, number) -> None:
        self.published = number

    def send(self, worker: int, request: Request) -> None:
        self.sent.append((worker, request))
        self.queue.append((worker, request))

    def receive(self, timeout_s: float):
        queued, self.queue = self.queue, []
        late, self.late = self.late, []
        events = []
        for worker, request in reversed(queued) if self.reverse else queued:
            events += self._answer(worker, request)
        # What was late in the round before comes last, where it could replace an answer of this one.
        return events + late

    def close(self) -> None:
        self.alive = []

    def _answer(self, worker: int, request: Request) -> list[Event]:
        if worker not in self.alive:
            return []
        fault = next(
            (
                f
                for f in self.faults
                if (f.worker, f.step, f.during) == (worker, request.step, type(request)) and not self.fired[f]
            ),
            None,
        )
        if fault is None:
            return [self._compute(worker, request)]
        self.fired[fault] += 1
        if fault.kind == "kill":
            self.alive.remove(worker)
            self._leave_half_written(request)
            return [WorkerLost(worker, "killed")]
        if fault.kind == "raise":
            return [RequestFailed(worker, request, "Traceback: ZeroDivisionError")]
        reply = self._compute(worker, request)
        if fault.kind == "answer late":
            self.late.append(reply)
        return [reply, reply] if fault.kind == "answer twice" else [reply]

    def _leave_half_written(self, request: Request) -> None:
        """What a worker that dies while it updates leaves of its blocks."""
        if isinstance(request, UpdateRequest):
            successor = self.states[1 - self.published]
            for number in range(request.start, request.stop):
                for flat in (successor.theta, *successor.slots):
                    flat[self.problem.layout.blocks[number]] = np.nan

    def _compute(self, worker: int, request: Request):
        before, after = self.states[self.published], self.states[1 - self.published]
        if isinstance(request, UpdateRequest):
            sums = {node: self.sums[holder, node] for node, holder in request.holders}
            return replace(self.computer.updates(request, sums, before, after), worker=worker)
        parameters = self.computer.own_parameters(before.theta)
        if isinstance(request, EvaluationRequest):
            return self.computer.evaluations(request, parameters)
        reply = self.computer.gradients(request, parameters)
        # A real transport serializes, or the memory is each worker's own; the computer's buffers are shared here.
        sums = {node: total.copy() for node, total in reply.sums.items()}
        self.sums |= {(worker, node): total for node, total in sums.items()}
        return replace(reply, worker=worker, sums=sums)


class FirstWorkers:
    """An exchange's first few workers; the others are left idle."""

    def __init__(self, exchange: Exchange, count: int) -> None:
        self._exchange, self._chosen = exchange, set(exchange.workers[:count])
        self.states, self.updates = exchange.states, exchange.updates
        self.publish, self.send, self.receive = exchange.publish, exchange.send, exchange.receive

    @property
    def workers(self):
        return [worker for worker in self._exchange.workers if worker in self._chosen]


class FakeClock:
    """Advances by a second each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def toy_spec(**changes) -> JobSpec:
    """A small spec; keywords replace whole sections."""
    sections = {
        "name": "toy",
        "data": {"source": "digits"},
        "model": {"kind": "mlp", "hidden": [7]},
        "optimizer": {"kind": "momentum"},
        "objective": {"l2": 1e-3},
        "batch": {"size": 30, "shards": 4},
    }
    return JobSpec(**sections | changes).resolved()


def toy_loop(
    spec: JobSpec,
    dataset: Dataset,
    *,
    workers=2,
    faults=(),
    reverse=False,
    updates=False,
    interrupted=lambda: False,
    state=None,
    clock=None,
):
    """A step loop over a fake exchange; returns both."""
    problem = make_problem(spec, dataset)
    exchange = InProcessExchange(problem, dataset, workers, faults, reverse, updates)
    state = state or initial_state(problem, spec.seed)
    loop = StepLoop(problem, learning_rates(spec), exchange, Rounds(exchange, interrupted), clock or FakeClock(), state)
    return loop, exchange
