"""An exchange without Ray, sockets or processes that computes real leaves and loses workers on declared occasions."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from shardsgd.coordinator.data import Dataset
from shardsgd.coordinator.loop import StepLoop, initial_state
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.staffing import Limits
from shardsgd.coordinator.training import make_problem
from shardsgd.model.layout import Flat
from shardsgd.model.problem import Problem
from shardsgd.model.state import Updater
from shardsgd.model.tree import Node, cover
from shardsgd.spec import JobSpec
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    EvaluationRequest,
    Event,
    Exchange,
    GradientRequest,
    Gradients,
    Request,
    RequestFailed,
    RowDistancesRequest,
    UpdateRequest,
    WorkerJoined,
    WorkerLeaving,
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
    """Something that happens, once, instead of or beside the answer of `worker` in `step`.

    "kill": dies instead of answering; "die after": right after it has answered; "raise": its computation fails; "hang": never
    answers, and must be killed; "slow": answers after `seconds`; "nan", "corrupt": a gradient that no other worker confirms;
    "notice": answers, and says that it has to leave; "start": the next replacement dies while it starts. What comes of "raise",
    "nan" and "corrupt" comes `late_by` seconds late.
    """

    kind: Literal[
        "kill",
        "die after",
        "raise",
        "hang",
        "slow",
        "nan",
        "corrupt",
        "notice",
        "start",
        "answer twice",
        "answer late",
    ]
    worker: int
    step: int
    during: type[Request] = GradientRequest
    seconds: float = 1.0
    late_by: float = 0.0


@dataclass
class FakeTime:
    """A clock that stands still unless somebody waits."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class InProcessExchange:
    """The exchange port in one process, with a clock of its own.

    Attributes:
        fired: how often each fault happened.
        reverse: deliver answers in the opposite order of the requests.
        start_seconds: what a worker takes to start; None: no worker can be had.
        computer: of all workers, for many exchanges over one problem; its programs are compiled once.
        most_receives: a round that waits longer never ends.
    """

    problem: Problem
    dataset: Dataset
    count: int
    faults: Sequence[Fault] = ()
    reverse: bool = False
    updates: bool = False
    start_seconds: float | None = None
    computer: LeafComputer | None = None
    most_receives: int = 10_000
    fired: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        updater = Updater(self.problem)
        self.states = (updater.buffers(), updater.buffers())
        # As shared memory has it: a worker's sum of node (a, b) lies in its buffer a, and a later one over it.
        self.sums: dict[tuple[int, int], Flat] = {}
        self.alive = list(range(self.count))
        self.computer = self.computer or LeafComputer(self.problem, ArrayRows(self.dataset))
        # (whose, what, which state was published)
        self.queue: list[tuple[int, Request, int]] = []
        # (when it arrives, whose, what); what a fault makes of a request with its state is computed then
        self.arriving: list[tuple[float, int, Event | tuple[Fault, Request, int]]] = []
        self.published = 0
        self.receives = 0
        self.late: list[Event] = []
        self.sent: list[tuple[int, Request]] = []
        self.hung: set[int] = set()
        self.started: list[int] = []
        self.time = FakeTime()

    @property
    def workers(self):
        return self.alive

    def start(self, worker: int) -> None:
        # Its loss has been received too, if there was one.
        pending = [event for _, _, event in self.arriving if not isinstance(event, tuple) and event.worker == worker]
        assert worker not in self.alive, "numbers are not used twice at a time"
        assert not pending, "numbers are not used twice at a time"
        self.started.append(worker)
        if self.start_seconds is None:
            self.arriving.append((self.time.now, worker, WorkerLost(worker, "no worker can be had")))
            return
        dies = next((f for f in self.faults if f.kind == "start" and f.worker == worker and not self.fired[f]), None)
        self.fired.update([dies] if dies else [])
        event = WorkerLost(worker, "killed while it started") if dies else WorkerJoined(worker)
        self.arriving.append((self.time.now + self.start_seconds, worker, event))

    def kill(self, worker: int) -> None:
        if worker in self.alive:
            self._die(worker)
            self.arriving.append((self.time.now, -1, WorkerLost(worker, "killed")))
        elif any(whose == worker for _, whose, _ in self.arriving):
            self.arriving = [each for each in self.arriving if each[1] != worker]
            self.arriving.append((self.time.now, -1, WorkerLost(worker, "killed before it was ready")))

    def perish(self, worker: int) -> None:
        """A worker dies, whatever it was doing."""
        self._die(worker)
        self.arriving.append((self.time.now, -1, WorkerLost(worker, "it perished")))

    def dismiss(self, worker: int) -> None:
        assert not self._busy(worker), "it has answered all it was asked"
        self.alive.remove(worker)

    def publish(self, number) -> None:
        self.published = number

    def send(self, worker: int, request: Request) -> None:
        self.sent.append((worker, request))
        if worker in self.alive:
            self.queue.append((worker, request, self.published))

    def receive(self, timeout_s: float):
        self.receives += 1
        assert self.receives <= self.most_receives, "this never ends"
        queued, self.queue = self.queue, []
        late, self.late = self.late, []
        events = []
        for worker, request, number in reversed(queued) if self.reverse else queued:
            events += self._answer(worker, request, number)
        events += self._arrived()
        # What was late in the round before comes last, where it could replace an answer of this one.
        if not events and not late:
            self.time.now += timeout_s
            events = self._arrived()
        return events + late

    def close(self) -> None:
        self.alive = []

    def _busy(self, worker: int) -> bool:
        return any(each[0] == worker for each in self.queue) or any(each[1] == worker for each in self.arriving)

    def _arrived(self) -> list[Event]:
        due = [each for each in self.arriving if each[0] <= self.time.now]
        self.arriving = [each for each in self.arriving if each[0] > self.time.now]
        self.alive = sorted([*self.alive, *(worker for _, worker, event in due if isinstance(event, WorkerJoined))])
        return [each for *_, event in due for each in (self._outcome(*event) if isinstance(event, tuple) else [event])]

    def _die(self, worker: int) -> None:
        self.alive.remove(worker)
        self.hung.discard(worker)
        self.queue = [each for each in self.queue if each[0] != worker]
        self.arriving = [each for each in self.arriving if each[1] != worker]

    def _answer(self, worker: int, request: Request, number: int) -> list[Event]:
        if worker not in self.alive or worker in self.hung:
            return []
        if any(whose == worker for _, whose, _ in self.arriving):
            # One after the other.
            self.queue.append((worker, request, number))
            return []
        occasion = (worker, request.step, type(request))
        for fault in self.faults:
            if (fault.worker, fault.step, fault.during) == occasion and fault.kind != "start" and not self.fired[fault]:
                self.fired[fault] += 1
                return self._happen(fault, request, number)
        return [self._compute(worker, request, number)]

    def _happen(self, fault: Fault, request: Request, number: int) -> list[Event]:
        seconds = fault.seconds if fault.kind == "slow" else fault.late_by
        if seconds or fault.kind in ("kill", "hang"):
            self._leave_half_written(fault.worker, request, number)
        if fault.kind == "kill":
            self._die(fault.worker)
            return [WorkerLost(fault.worker, "killed")]
        if fault.kind == "hang":
            self.hung.add(fault.worker)
            return []
        if seconds:
            self.arriving.append((self.time.now + seconds, fault.worker, (fault, request, number)))
            return []
        return self._outcome(fault, request, number)

    def _outcome(self, fault: Fault, request: Request, number: int) -> list[Event]:
        worker = fault.worker
        if fault.kind == "raise":
            return [RequestFailed(worker, request, "Traceback: ZeroDivisionError")]
        reply = self._compute(worker, request, number)
        match fault.kind:
            case "die after":
                self._die(worker)
                return [reply, WorkerLost(worker, "killed")]
            case "nan":
                return [self._corrupted(reply, np.nan)]
            case "corrupt":
                return [self._corrupted(reply, 1e6)]
            case "notice":
                return [WorkerLeaving(worker), reply]
            case "answer late":
                self.late.append(reply)
        return [reply, reply] if fault.kind == "answer twice" else [reply]

    def _corrupted(self, reply, factor):
        if not isinstance(reply, Gradients):
            return reply
        for total in reply.sums.values():
            self._scale(total, factor)
        return replace(reply, norms={node: norm * factor**2 for node, norm in reply.norms.items()})

    def _scale(self, total: Flat, factor: float) -> None:
        # Padding stays 0.
        for view in self.problem.layout.views(total).values():
            np.multiply(view, view.dtype.type(factor), out=view)

    def _leave_half_written(self, worker: int, request: Request, number: int) -> None:
        """What a worker leaves of the memory it writes to, when it dies or as long as it is not done."""
        if isinstance(request, GradientRequest):
            for node in cover(request.start, request.stop, self.problem.sampling.shards):
                self._scale(self._sum(worker, node), np.nan)
        if isinstance(request, UpdateRequest):
            successor = self.states[1 - number]
            for block in range(request.start, request.stop):
                for flat in (successor.theta, *successor.slots):
                    flat[self.problem.layout.blocks[block]] = np.nan

    def _sum(self, worker: int, node: Node) -> Flat:
        return self.sums.setdefault((worker, node[0]), self.problem.layout.zeros())

    def _compute(self, worker: int, request: Request, number: int):
        before, after = self.states[number], self.states[1 - number]
        if isinstance(request, UpdateRequest):
            sums = {node: self._sum(holder, node) for node, holder in request.holders}
            return replace(self.computer.updates(request, sums, before, after), worker=worker)
        parameters = self.computer.own_parameters(before.theta)
        if isinstance(request, EvaluationRequest):
            return replace(self.computer.evaluations(request, parameters), worker=worker)
        if isinstance(request, RowDistancesRequest | BatchDistancesRequest):
            return replace(self.computer.distances(request, parameters, after.theta), worker=worker)
        return replace(self.computer.gradients(request, parameters, partial(self._sum, worker)), worker=worker)


class FirstWorkers:
    """An exchange's first few workers; the others are left idle."""

    def __init__(self, exchange: Exchange, count: int) -> None:
        self._exchange, self._chosen = exchange, set(exchange.workers[:count])
        self.states, self.updates = exchange.states, exchange.updates
        self.publish, self.send, self.receive = exchange.publish, exchange.send, exchange.receive
        self.start, self.kill, self.dismiss = exchange.start, exchange.kill, exchange.dismiss

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


def toy_rounds(exchange, *, limits=None, interrupted=lambda: False, wanted=lambda: None, patience=None, verify=0.0):
    """Rounds over an exchange, by its own clock if it has one."""
    clock = getattr(exchange, "time", time.monotonic)
    limits = limits or Limits(most=max(exchange.workers) + 1, wait_seconds=0.0)
    members = Members(exchange, limits, clock, target=len(exchange.workers), wanted=wanted)
    return Rounds(exchange, members, clock, interrupted=interrupted, patience=patience, verify=verify)


def toy_loop(
    spec: JobSpec,
    dataset: Dataset,
    *,
    workers=2,
    faults=(),
    reverse=False,
    updates=False,
    start_seconds=None,
    problem=None,
    computer=None,
    state=None,
    clock=None,
    **options,
):
    """A step loop over a fake exchange, `options` as for `toy_rounds`; returns both."""
    problem = problem or make_problem(spec, dataset)
    exchange = InProcessExchange(problem, dataset, workers, faults, reverse, updates, start_seconds, computer)
    state = state or initial_state(problem, spec.seed)
    rounds = toy_rounds(exchange, **options)
    loop = StepLoop(problem, learning_rates(spec), exchange, rounds, clock or FakeClock(), state)
    return loop, exchange
