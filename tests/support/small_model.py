"""Runs of one small problem over the fake exchange, and whether they end as a run that nothing disturbs."""

import itertools
from contextlib import contextmanager

import pytest
from fakes import ArrayRows, toy_dataset, toy_loop, toy_spec
from trees import blocks_of

from shardsgd.coordinator.loop import initial_state
from shardsgd.coordinator.staffing import Limits
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import JobError
from shardsgd.model import problem as problem_module
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import EvaluationRequest, GradientRequest, UpdateRequest, WorkerLost

DURING = {"gradients": GradientRequest, "update": UpdateRequest, "evaluation": EvaluationRequest}
STEPS = 3
LONGEST_RUN = 40


@contextmanager
def small_model(**changes):
    """A model of which workers update the blocks; keywords as for `toy_spec`."""
    with pytest.MonkeyPatch.context() as patch, blocks_of(16):
        patch.setattr(problem_module, "_SHARED_BLOCKS", 2)
        yield SmallModel(toy_spec(**changes))


class SmallModel:
    """One problem, and one compiled program for all its runs.

    Attributes:
        undisturbed: the history of a long run of a single worker.
    """

    def __init__(self, spec):
        self.spec, self.dataset = spec, toy_dataset()
        self.problem = make_problem(spec, self.dataset)
        self.computer = LeafComputer(self.problem, ArrayRows(self.dataset))
        self.initial = initial_state(self.problem, spec.seed)
        alone = self.run(workers=1, steps=LONGEST_RUN)
        assert alone.error is None
        self.undisturbed = alone.history

    def loop(self, *faults, workers=2, most=None, wait_seconds=60.0, updates=True, **options):
        """A step loop and its exchange; options as for `toy_loop`."""
        limits = Limits(least=1, most=most or workers, wait_seconds=wait_seconds)
        return toy_loop(
            self.spec,
            self.dataset,
            workers=workers,
            faults=faults,
            updates=updates,
            problem=self.problem,
            computer=self.computer,
            state=self.initial,
            **{"limits": limits} | options,
        )

    def run(self, *faults, steps=STEPS, most_receives=10_000, **options):
        """A run of a few steps; options as for `loop`."""
        loop, exchange = self.loop(*faults, **options)
        exchange.most_receives = most_receives
        return Run(loop, exchange, steps)


class Run:
    """What became of a run: a history of every state and evaluation, and the error that ended it.

    Each step is three rounds: gradients, the update by the workers, and an evaluation of the training rows.
    """

    def __init__(self, loop, exchange, steps=STEPS):
        self.loop, self.exchange, self.steps = loop, exchange, steps
        self.rounds, self.members = loop._rounds, loop._rounds.members
        self.history, self.error = [self._state()], None
        try:
            for _ in range(steps):
                loop.step()
                self.history.append(self._state())
                self.history.append(loop.evaluate("train"))
        except JobError as error:
            self.error = error

    def _state(self):
        state = self.loop.state
        flats = [flat.tobytes() for flat in (state.theta, *state.optimizer_state)]
        return state.step, flats, repr(state.noise), repr(state.progress)

    def ends_as(self, model, error=None):
        """Asserts the same bits; where an error was to be expected, this one, and the same bits up to then."""
        assert type(self.error) is (error or type(None)), self.error
        assert self.history == model.undisturbed[: len(self.history)]
        assert self._state() in self.history, "the state before the step that failed"
        assert error or len(self.history) == 1 + 2 * self.steps

    def asked(self, kind=GradientRequest, step=None):
        """(worker, start, stop) of requests of a kind, in order."""
        return [
            (worker, request.start, request.stop)
            for worker, request in self.exchange.sent
            if isinstance(request, kind) and step in (None, request.step)
        ]

    def incidents(self, *kinds):
        """Those of some kinds; all if none are given."""
        return [each for each in self.members.incidents if not kinds or each.kind in kinds]

    def book(self):
        """(kind, worker) of all incidents."""
        return [(each.kind, each.worker) for each in self.incidents()]


def before_each_receive(exchange, action):
    """Has `action` called with the number of each wait, from 0, before it."""
    receive, numbers = exchange.receive, itertools.count()

    def acting(timeout_s):
        action(next(numbers))
        return receive(timeout_s)

    exchange.receive = acting


def pass_time(exchange, seconds):
    """Each wait takes so long, however soon an answer comes."""

    def tick(number):
        exchange.time.now += seconds

    before_each_receive(exchange, tick)


def logged(exchange):
    """What the exchange is told and tells of workers as it happens: (what, worker, when, request)."""
    log = []

    def noting(name):
        method = getattr(exchange, name)

        def noted(worker, request=None):
            log.append((name, worker, exchange.time.now, request))
            method(worker, *([request] if request else []))

        setattr(exchange, name, noted)

    noting("send")
    noting("kill")
    receive = exchange.receive

    def receiving(timeout_s):
        events = receive(timeout_s)
        log.extend(("lost", event.worker, exchange.time.now, None) for event in events if isinstance(event, WorkerLost))
        return events

    exchange.receive = receiving
    return log


def pause_once(exchange, due, answering=()):
    """Once it is due this process and all workers are stopped for an hour, within a wait; some answer as soon as they go on."""
    receive, paused = exchange.receive, []

    def pausing(timeout_s):
        if not paused and due():
            paused.append(True)
            exchange.arriving = [
                (when + 3600 * (worker not in answering), worker, what) for when, worker, what in exchange.arriving
            ]
            exchange.time.now += 3600
        return receive(timeout_s)

    exchange.receive = pausing
