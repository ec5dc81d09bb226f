"""Every exchange does the same: real Ray, real workers, real sockets, real signals."""

import os
import select
import signal
from pathlib import Path

import pytest
from fakes import FakeClock, FirstWorkers, toy_dataset, toy_loop, toy_rounds, toy_spec

from shardsgd.coordinator.loop import StepLoop
from shardsgd.coordinator.opening import open_exchange
from shardsgd.coordinator.plan import Patience
from shardsgd.coordinator.rates import learning_rates
from shardsgd.coordinator.staffing import Limits
from shardsgd.coordinator.training import make_problem
from shardsgd.errors import JobError, LeafError
from shardsgd.workers.environment import WORKER_ENVIRONMENT
from shardsgd.workers.exchange import GradientRequest, Gradients, UpdateRequest, WorkerLost
from shardsgd.workers.faults import Fault, FaultPlan, fired
from shardsgd.workers.pool import WorkerPool
from shardsgd.workers.shared_memory import _free_of_the_cgroup, check_memory
from shardsgd.workers.shared_memory_exchange import SharedMemoryExchange

pytestmark = pytest.mark.usefixtures("ray_session")


def start(spec, dataset, workers, environment=WORKER_ENVIRONMENT, faults=None):
    problem = make_problem(spec, dataset)
    validation = dataset.validation
    return WorkerPool(problem, dataset.shards, validation, workers=workers, environment=environment, faults=faults)


@pytest.fixture(scope="module")
def pool(ray_session):
    """Workers for the tests that leave them as they were."""
    started = start(toy_spec(), toy_dataset(), 3)
    yield started
    started.close()


@pytest.fixture
def own_pool():
    """Workers for a test that kills them."""
    started = start(toy_spec(), toy_dataset(), 3)
    yield started
    started.close()


@pytest.fixture(params=["ray", "shared_memory"])
def kind(request):
    return request.param


@pytest.fixture
def exchange(kind, pool):
    opened = open_exchange(kind, pool, make_problem(toy_spec(), toy_dataset()))
    yield opened
    opened.close()


def loop_over(exchange, spec, dataset):
    """A loop with the state of a fake one's start, so that both begin alike."""
    problem = make_problem(spec, dataset)
    state = toy_loop(spec, dataset)[0].state
    return StepLoop(problem, learning_rates(spec), exchange, toy_rounds(exchange), FakeClock(), state)


def test_workers_compute_with_one_xla_thread_each_and_say_who_they_are(pool):
    assert [info.xla_threads for info in pool.infos.values()] == [1, 1, 1]
    assert len({info.pid for info in pool.infos.values()}) == 3
    for info in pool.infos.values():
        assert b"shardsgd-worker" in Path(f"/proc/{info.pid}/cmdline").read_bytes()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core XLA has one thread whatever it is told")
def test_more_xla_threads_are_refused():
    environment = {"NPROC": "2", "PJRT_NPROC": "2", "JAX_PLATFORMS": "cpu"}
    with pytest.raises(JobError, match=r"XLA computes with 2 threads"):
        start(toy_spec(), toy_dataset(), 1, environment)


def test_bits_equal_those_of_one_process_and_nothing_recompiles(exchange):
    spec, dataset = toy_spec(), toy_dataset()
    real, (fake, _) = loop_over(exchange, spec, dataset), toy_loop(spec, dataset, workers=1)
    for _ in range(5):
        assert real.step().loss == fake.step().loss
    assert real.state.theta.tobytes() == fake.state.theta.tobytes()
    assert real.evaluate("validation") == fake.evaluate("validation")


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("model", [{"kind": "linear"}, {"kind": "mlp", "hidden": [9, 7]}], ids=["linear", "mlp"])
def test_every_exchange_number_of_workers_and_way_to_update_gives_the_same_bits(model, precision, monkeypatch):
    spec = toy_spec(model=model, batch={"size": 30, "shards": 7, "precision": precision})
    dataset = toy_dataset(shards=7)
    problem = make_problem(spec, dataset)
    pool = start(spec, dataset, 3)
    fake, _ = toy_loop(spec, dataset, workers=1)
    expected = [fake.step().loss for _ in range(4)], fake.state.theta.tobytes(), fake.evaluate("validation")
    for kind, shared_blocks in (("ray", 99), ("shared_memory", 99), ("shared_memory", 1)):
        # Here more than one block would take a network that is slow to compile; whether a second round pays is not the point.
        monkeypatch.setattr("shardsgd.model.problem._SHARED_BLOCKS", shared_blocks)
        for count in (1, 2, 3):
            exchange = open_exchange(kind, pool, problem)
            loop = loop_over(FirstWorkers(exchange, count), spec, dataset)
            found = [loop.step().loss for _ in range(4)], loop.state.theta.tobytes(), loop.evaluate("validation")
            exchange.close()
            assert found == expected, (kind, shared_blocks, count)
    pool.close()


def test_workers_killed_by_a_signal_cost_no_bit_and_are_replaced(kind, own_pool):
    spec, dataset = toy_spec(), toy_dataset()
    exchange = open_exchange(kind, own_pool, make_problem(spec, dataset))
    real, (fake, _) = loop_over(exchange, spec, dataset), toy_loop(spec, dataset, workers=1)
    pids = [info.pid for info in own_pool.infos.values()]
    killed = [pids.pop(), pids.pop()]
    while real.state.step < 6 or list(exchange.workers) != [0, 1, 2]:
        if real.state.step in (1, 4) and killed:
            os.kill(killed.pop(), signal.SIGKILL)
        assert real.step().loss == fake.step().loss
    assert real.state.theta.tobytes() == fake.state.theta.tobytes()
    assert real.state.recoveries == 2
    assert pids[0] in {info.pid for info in own_pool.infos.values()}
    exchange.close()


FAULTS = ("kill", "segfault", "exit", "raise", "stop", "stuck", "nan", "corrupt", "notice", "slow")


@pytest.mark.parametrize("shared_blocks", [1, 99])
def test_whatever_happens_to_a_worker_happens_once_and_costs_no_bit(kind, shared_blocks, tmp_path, monkeypatch):
    """All kinds of faults one after the other, the worker before replaced."""
    if kind == "ray" and shared_blocks == 1:
        pytest.skip("workers share no memory to update")
    monkeypatch.setattr("shardsgd.model.problem._SHARED_BLOCKS", shared_blocks)
    spec, dataset = toy_spec(), toy_dataset()
    during = "update" if shared_blocks == 1 else "gradients"
    kinds = [each for each in FAULTS if during == "gradients" or each not in ("nan", "corrupt")]
    # The toy has one block of the update, which is worker 0's.
    points = ["before compute" if each in ("raise", "stuck") else "before reply" for each in kinds]
    declared = tuple(
        Fault(
            each,
            at=2 + 3 * number,
            point=point,
            worker=0 if during == "update" else number % 2,
            during=during,
            seconds=0.2,
        )
        for number, (each, point) in enumerate(zip(kinds, points, strict=True))
    )
    plan = FaultPlan(declared, tmp_path)
    pool = start(spec, dataset, 2, faults=plan)
    exchange = open_exchange(kind, pool, make_problem(spec, dataset))
    rounds = toy_rounds(exchange, limits=Limits(most=2), patience=Patience(hang_seconds=0.5, first_seconds=5.0))
    fake, _ = toy_loop(spec, dataset, workers=1)
    state = toy_loop(spec, dataset)[0].state
    real = StepLoop(make_problem(spec, dataset), learning_rates(spec), exchange, rounds, FakeClock(), state)
    while len(fired(plan)) < len(declared) or real.state.step < declared[-1].at + 3:
        assert real.step().loss == fake.step().loss
        # A fault is for a worker of that number: the next one must be there.
        while len(rounds.members.able) < 2:
            rounds._await_members()
            for event in exchange.receive(0.05):
                rounds._take(event, None)
    assert real.state.theta.tobytes() == fake.state.theta.tobytes()
    assert real.evaluate("validation") == fake.evaluate("validation")
    # On a busy machine a worker that is late at a step has its fault at the next that it is asked for.
    assert [(each.fault, each.worker) for each in fired(plan)] == [(f, f.worker) for f in declared]
    assert all(each.at >= each.fault.at for each in fired(plan))
    costs_the_worker = [each for each in kinds if each not in ("notice", "slow")]
    assert real.state.recoveries == len(costs_the_worker)
    exchange.close()
    pool.close()


def test_a_worker_killed_while_it_updates_costs_no_bit(monkeypatch):
    """Its blocks are updated by the others from its sums, which outlive it."""
    monkeypatch.setattr("shardsgd.model.problem._SHARED_BLOCKS", 1)
    # 3 blocks of the update, so that each worker has one.
    spec, dataset = toy_spec(model={"kind": "mlp", "hidden": [400, 400]}), toy_dataset()
    problem = make_problem(spec, dataset)
    assert len(problem.layout.blocks) == 3
    pool = start(spec, dataset, 3)
    exchange = open_exchange("shared_memory", pool, problem)
    fired = []

    def send(worker, request):
        if isinstance(request, UpdateRequest) and (worker, request.step) in {(1, 2), (2, 3)}:
            fired.append((worker, request.step))
            os.kill(pool.infos[worker].pid, signal.SIGKILL)
        exchange.send(worker, request)

    killing = FirstWorkers(exchange, 3)
    killing.send = send
    loop, (fake, _) = loop_over(killing, spec, dataset), toy_loop(spec, dataset, workers=1)
    for _ in range(6):
        assert loop.step().gradient_norm == fake.step().gradient_norm
    assert loop.state.theta.tobytes() == fake.state.theta.tobytes()
    assert fired == [(1, 2), (2, 3)]
    assert loop.state.recoveries == 2
    exchange.close()
    pool.close()


def test_a_worker_that_died_takes_requests_in_silence_and_its_loss_is_told_once(kind, own_pool):
    """A plan may give one worker two ranges, and it may have died before the first is sent."""
    exchange = open_exchange(kind, own_pool, make_problem(toy_spec(), toy_dataset()))
    exchange.publish(0)
    pid = own_pool.infos[1].pid
    os.kill(pid, signal.SIGKILL)
    _wait_until_gone(pid)
    exchange.send(1, GradientRequest(0, 0, 0, 1))
    exchange.send(1, GradientRequest(0, 0, 2, 3))
    events = []
    while not events:
        events += exchange.receive(1.0)
    exchange.send(0, GradientRequest(0, 1, 0, 4))
    while len(events) < 2:
        events += exchange.receive(1.0)
    assert [type(event) for event in events] == [WorkerLost, Gradients]
    assert events[0].worker == 1
    exchange.close()


def test_a_worker_that_answers_what_it_was_not_asked_is_lost_rather_than_the_job(own_pool):
    """Asked twice under one name, it answers twice."""
    exchange = open_exchange("shared_memory", own_pool, make_problem(toy_spec(), toy_dataset()))
    exchange.publish(0)
    request = GradientRequest(0, 0, 0, 4)
    exchange.send(1, request)
    exchange.send(1, request)
    events = []
    while len(events) < 2:
        events += exchange.receive(1.0)
    assert [type(event) for event in events] == [Gradients, WorkerLost]
    assert events[1].reason == "it answered what it was not asked"
    assert list(exchange.workers) == [0, 2]
    exchange.close()


def test_an_error_inside_a_leaf_comes_back_with_its_traceback(exchange):
    # No random stream has a negative counter.
    exchange.publish(0)
    what = r"(?s)worker \d failed in step -1 on leaves (\d) to \d \(and so did worker \d\):\n.*in leaf \1 of step -1: Overflow"
    with pytest.raises(LeafError, match=what) as caught:
        toy_rounds(exchange).run(4, lambda version, start, stop: GradientRequest(-1, version, start, stop))
    assert "\x1b[" not in str(caught.value)
    assert list(exchange.workers) == [0, 1, 2], "the workers live"


def test_a_worker_that_cannot_start_is_a_clear_error():
    with pytest.raises(JobError, match="a worker could not start"):
        start(toy_spec(), toy_dataset(), 1, {**WORKER_ENVIRONMENT, "JAX_PLATFORMS": "nonsense"})


def test_closing_ends_the_workers_processes(kind, own_pool):
    exchange = open_exchange(kind, own_pool, make_problem(toy_spec(), toy_dataset()))
    pids = [info.pid for info in own_pool.infos.values()]
    for _ in range(2):
        exchange.close()
        own_pool.close()
    for pid in pids:
        _wait_until_gone(pid)


def _wait_until_gone(pid: int) -> None:
    """Blocks until the process has ended; the test's timeout is the limit."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(handle) as process:
        assert select.select([process], [], [], 30)[0], f"process {pid} is still there"


def test_waiting_costs_no_cpu(exchange, pool):
    """Over two seconds in which nobody has anything to do; Ray's own threads get a tenth of a core at the most."""

    def ticks(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def answer():
        exchange.send(0, GradientRequest(0, 0, 0, 4))
        while not exchange.receive(0.1):
            pass

    exchange.publish(0)
    answer()
    exchange.send(1, GradientRequest(0, 0, 0, 4))
    os.kill(pool.infos[1].pid, signal.SIGSTOP)
    exchange.receive(0.5)
    before = {info.pid: ticks(info.pid) for info in pool.infos.values()}
    here = os.times()
    exchange.receive(2.0)
    waited = os.times()
    os.kill(pool.infos[1].pid, signal.SIGCONT)
    second = os.sysconf("SC_CLK_TCK")
    assert max(ticks(pid) - start for pid, start in before.items()) <= 0.2 * second
    assert waited.user + waited.system - here.user - here.system <= 0.2


def test_hanging_up_ends_the_service_of_a_worker_but_not_the_worker(pool):
    problem = make_problem(toy_spec(), toy_dataset())
    for _ in range(3):
        exchange = SharedMemoryExchange(pool, problem)
        exchange.publish(0)
        assert list(exchange.workers) == [0, 1, 2]
        exchange.close()


def test_memory_that_is_not_there_is_refused_with_the_numbers():
    with pytest.raises(
        JobError, match=r"not enough memory for 3 buffers: 1,000,000,000,000,000 bytes are needed, [\d,]+ are"
    ):
        check_memory(10**15, "3 buffers")


def test_what_a_container_has_left_counts_pages_of_files_as_free(tmp_path):
    assert _free_of_the_cgroup(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 200\nshmem 50\nactive_file 300\ninactive_file 350\n")
    assert _free_of_the_cgroup(tmp_path) == 1000 - 900 + 300 + 350
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_of_the_cgroup(tmp_path) == float("inf")
