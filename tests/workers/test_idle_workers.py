"""Workers that go from one job to the next: real Ray, real processes, real signals."""

import os
import select
import signal
import time
from pathlib import Path

import pytest
import ray
from fakes import FakeClock, toy_dataset, toy_loop, toy_rounds, toy_spec

from shardsgd.coordinator.loop import StepLoop
from shardsgd.coordinator.opening import open_exchange
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.training import make_problem
from shardsgd.workers import idle_workers
from shardsgd.workers.environment import WORKER_ENVIRONMENT
from shardsgd.workers.exchange import GradientRequest
from shardsgd.workers.idle_workers import IdleWorkers
from shardsgd.workers.pool import WorkerPool

pytestmark = pytest.mark.usefixtures("ray_session")

LIMIT_S = 30.0
JOBS = [
    toy_spec(),
    toy_spec(model={"kind": "linear"}, batch={"size": 30, "shards": 4, "precision": "float64"}),
    toy_spec(seed=1, objective={"l2": 0.1}),
    toy_spec(batch={"size": 30, "shards": 4, "precision": "bfloat16"}),
    toy_spec(batch={"size": 20, "shards": 4}),
    toy_spec(model={"kind": "mlp", "hidden": [7], "activation": "tanh"}),
]


@pytest.fixture
def idle():
    workers = IdleWorkers(WORKER_ENVIRONMENT)
    yield workers
    workers.close()


def opened(idle, spec=JOBS[0], workers=2):
    """A job's pool."""
    dataset = toy_dataset()
    problem = make_problem(spec, dataset)
    return WorkerPool(
        problem, dataset.shards, dataset.validation, workers=workers, environment=WORKER_ENVIRONMENT, idle=idle
    )


def pids(pool):
    return {info.pid for info in pool.infos.values()}


def wait_until_gone(pid):
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(handle) as process:
        assert select.select([process], [], [], LIMIT_S)[0], f"process {pid} is still there"


@pytest.mark.parametrize("kind", ["shared_memory", "ray"])
def test_one_job_after_the_other_on_the_same_workers_has_its_own_bits(kind, idle):
    seen = set()
    for spec in [*JOBS, JOBS[0]]:
        dataset = toy_dataset()
        problem = make_problem(spec, dataset)
        pool = opened(idle, spec)
        exchange = open_exchange(kind, pool, problem)
        (fake, _), state = toy_loop(spec, dataset, workers=1), toy_loop(spec, dataset)[0].state
        real = StepLoop(problem, learning_rates(spec), exchange, toy_rounds(exchange), FakeClock(), state)
        for _ in range(4):
            assert real.step().loss == fake.step().loss
        assert real.state.theta.tobytes() == fake.state.theta.tobytes()
        assert real.evaluate("validation") == fake.evaluate("validation")
        seen.add(frozenset(pids(pool)))
        exchange.close()
        pool.close()
        assert (len(idle), pool.actors, pool.infos) == (2, {}, {})
    assert len(seen) == 1


def test_workers_are_started_ahead_and_more_where_they_are_not_enough(idle):
    idle.start(1)
    (first,) = idle._idle
    pool = opened(idle)
    assert len(idle) == 0
    assert pid_of(first) in pids(pool)
    pool.close()
    assert len(idle) == 2
    pool = opened(idle, workers=1)
    assert len(idle) == 1
    pool.close()


def pid_of(actor):
    lines = Path(f"/proc/self/fdinfo/{actor.process}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def test_of_a_certain_node_only_its_own_workers_are_taken(idle):
    idle.start(1)
    assert idle.take("another node") is None
    assert idle.take(ray.get_runtime_context().get_node_id()) is not None


def test_a_worker_that_died_meanwhile_is_not_handed_out(idle):
    idle.start(2)
    gone, well = (pid_of(actor) for actor in idle._idle)
    os.kill(gone, signal.SIGKILL)
    wait_until_gone(gone)
    assert len(idle) == 1
    assert pid_of(idle.take()) == well
    assert idle.take() is None


def test_notice_ends_a_worker_that_has_no_job(idle):
    idle.start(1)
    pid = pid_of(idle._idle[0])
    os.kill(pid, signal.SIGTERM)
    wait_until_gone(pid)
    assert len(idle) == 0


@pytest.mark.parametrize("what", ["hangs", "is dead", "was given notice"])
def test_a_worker_that_is_not_well_is_not_kept(what, idle):
    pool = opened(idle)
    exchange = open_exchange("shared_memory", pool, make_problem(JOBS[0], toy_dataset()))
    ill, well = pool.infos[0].pid, pool.infos[1].pid
    if what == "was given notice":
        os.kill(ill, signal.SIGTERM)
        # It says so, and nobody listens any more.
        while not exchange._incoming.poll(1000 * LIMIT_S):
            pass
    else:
        os.kill(ill, {"hangs": signal.SIGSTOP, "is dead": signal.SIGKILL}[what])
    exchange.close()
    begun = time.monotonic()
    pool.close()
    assert time.monotonic() - begun < LIMIT_S
    wait_until_gone(ill)
    assert [pid_of(actor) for actor in idle._idle] == [well]


def test_a_worker_that_holds_much_memory_is_not_kept(idle, monkeypatch):
    pool = opened(idle)
    before = pids(pool)
    monkeypatch.setattr(idle_workers, "_MOST_BYTES", 2**20)
    pool.close()
    assert len(idle) == 0
    for pid in before:
        wait_until_gone(pid)


def test_what_a_job_took_is_given_back_when_it_ends(idle):
    idle.start(1)
    actor = idle._idle[0].handle

    def held():
        return ray.get(actor.retire.remote())

    before = held()
    # 20 million parameters: a leaf's gradient takes 80 MB.
    spec = toy_spec(model={"kind": "mlp", "hidden": [4400, 4400]})
    pool = opened(idle, spec, workers=1)
    exchange = open_exchange("shared_memory", pool, make_problem(spec, toy_dataset()))
    exchange.publish(0)
    exchange.send(0, GradientRequest(0, 0, 0, 4))
    while not exchange.receive(1.0):
        pass
    at_work = private_bytes(next(iter(pids(pool))))
    exchange.close()
    pool.close()
    assert at_work - before > 80 * 2**20
    assert held() - before < 40 * 2**20


def private_bytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_closing_ends_all(idle):
    idle.start(2)
    before = [pid_of(actor) for actor in idle._idle]
    for _ in range(2):
        idle.close()
    for pid in before:
        wait_until_gone(pid)
