"""The measurement in one process: closed forms, the law, and the same bits whatever happens to the workers."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fakes import ArrayRows, Fault, toy_dataset, toy_loop, toy_spec
from measuring import Measured, linear_gradients, told
from small_model import pass_time

from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.open_round import OpenRound
from shardsgd.coordinator.plan import Patience
from shardsgd.coordinator.variance.records import DRAWS, law_of, total
from shardsgd.coordinator.variance.setting import batch_sizes, dealt_anew, measured_problem, repeats_by_size
from shardsgd.errors import DivergedError, LeafError
from shardsgd.spec import JobSpec
from shardsgd.workers.compute import LeafComputer
from shardsgd.workers.exchange import BatchDistancesRequest, GradientRequest, RequestFailed, RowDistancesRequest
from shardsgd.workers.programs import Programs

REGRESSION = JobSpec(
    data={"source": "synthetic:linear,rows=600,features=10,noise=0.5", "validation": 0.0, "standardize": False},
    model={"kind": "linear"},
    objective={"loss": "squared_error", "l2": 0.3},
    batch={"size": 64, "precision": "float64"},
).resolved()
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600)


@pytest.fixture(scope="module")
def regression():
    """Linear regression at some θ, everything about it known."""
    measured = Measured(REGRESSION, load_dataset(REGRESSION))
    x, y = measured.rows()
    gradients = linear_gradients(x, y, measured.theta, measured.problem)
    measured.norms = measured.measurement.gradient()
    measured.traces = measured.measurement.traces(told)
    measured.exact_norm = float(np.sum(gradients.mean(axis=0) ** 2))
    measured.exact_trace = float(np.sum((gradients - gradients.mean(axis=0)) ** 2) / len(gradients))
    measured.exact_traces = np.var(gradients, axis=0)
    return measured


def test_tr_sigma_and_g_are_exact(regression):
    assert math.fsum(regression.traces) == pytest.approx(regression.exact_trace, rel=1e-11)
    assert math.fsum(regression.norms) == pytest.approx(regression.exact_norm, rel=1e-11)
    # Of weights and bias by themselves.
    weights, bias = regression.traces
    assert weights == pytest.approx(np.sum(regression.exact_traces[:-1]), rel=1e-11)
    assert bias == pytest.approx(regression.exact_traces[-1], rel=1e-11)


def test_a_regularizer_is_not_part_of_it(regression):
    without = REGRESSION.model_copy(update={"objective": REGRESSION.objective.model_copy(update={"l2": 0.0})})
    other = Measured(without, load_dataset(without)).measurement
    assert other.gradient().tobytes() == regression.norms.tobytes()
    assert other.traces(told).tobytes() == regression.traces.tobytes()


def with_seed(regression, seed, programs):
    """The same rows and θ, batches of another seed; nothing is compiled again."""
    sampling = replace(regression.problem.sampling, seed=seed)
    problem = replace(regression.problem, sampling=sampling)
    made = Measured(
        REGRESSION,
        regression.dataset,
        theta=regression.theta,
        workers=1,
        computer=LeafComputer(problem, ArrayRows(regression.dataset), programs=programs),
        problem=problem,
    )
    made.measurement.gradient()
    return made.measurement


@pytest.mark.timeout(400)
def test_the_law_in_200_seeds(regression):
    """MATH.md: tr Σ/B, inside the 95% interval in 90 to 100 of 100 cells; slope −1; and the factor without replacement."""
    trace, rows, sizes, repeats = regression.exact_trace, 600, (1, 8, 64, 256), 40
    inside, slopes, slopes_without, held = {draw: [] for draw in DRAWS}, [], [], 0
    ratios, programs = {(draw, size): [] for draw in DRAWS for size in sizes}, Programs()
    for seed in range(200):
        measurement = with_seed(regression, seed, programs)
        samples = [measurement.batches(draw, size, repeats, told) for size in sizes for draw in DRAWS]
        cells = [(one.draw, one.batch, total(one.squared)) for one in samples]
        law = law_of(trace, regression.exact_norm, rows, cells)
        for cell in law.cells:
            inside[cell.sampling].append(cell.ci_low <= cell.predicted <= cell.ci_high)
            ratios[cell.sampling, cell.batch].append(cell.measured / cell.predicted)
        slopes.append(law.slope)
        slopes_without.append(law.slope_without_replacement)
        held += law.slope_ci_low <= -1 <= law.slope_ci_high
    coverage = {draw: float(np.mean(found)) for draw, found in inside.items()}
    means = {cell: float(np.mean(found)) for cell, found in ratios.items()}
    assert all(0.90 <= share <= 1.0 for share in coverage.values()), coverage
    assert 0.85 <= held / 200 <= 1.0
    assert np.mean(slopes) == pytest.approx(-1, abs=0.02)
    assert np.mean(slopes_without) == pytest.approx(-1, abs=0.02)
    # 8,000 batches a cell: without bias.
    assert all(abs(ratio - 1) < 0.04 for ratio in means.values()), means


def test_all_rows_without_replacement_leave_nothing_but_rounding(regression):
    found = regression.measurement.batches("without_replacement", 600, 3, told)
    assert total(found.squared).max() < 1e-28 * regression.exact_norm
    half = total(regression.measurement.batches("without_replacement", 599, 50, told).squared).mean()
    assert half == pytest.approx(regression.exact_trace / 599 / 599, rel=0.5)


DIGITS = JobSpec(
    data={"source": "digits"},
    model={"hidden": [32]},
    optimizer={"kind": "momentum", "learning_rate": 0.2},
    batch={"size": 256},
).resolved()


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DIGITS)


@pytest.mark.parametrize("steps", [0, 12, 60], ids=["start", "middle", "end"])
def test_the_slope_on_digits(digits, steps):
    loop, _ = toy_loop(DIGITS, digits, workers=1)
    for _ in range(steps):
        loop.step()
    measured = Measured(DIGITS, digits, theta=loop.state.theta.copy(), workers=1)
    norms, traces = measured.measurement.gradient(), measured.measurement.traces(told)
    repeats = repeats_by_size(digits.rows, batch_sizes(digits.rows, None), None)
    samples = [measured.measurement.batches(draw, size, repeats[size], told) for size in repeats for draw in DRAWS]
    law = law_of(
        math.fsum(traces), math.fsum(norms), digits.rows, [(s.draw, s.batch, total(s.squared)) for s in samples]
    )
    assert law.slope == pytest.approx(-1, abs=0.03)
    assert law.slope_without_replacement == pytest.approx(-1, abs=0.03)


TOY = toy_dataset(rows=700, shards=4)
COMPUTERS = {}


def bits(*faults, workers=2, reverse=False):
    """Everything a small measurement gives, as bytes."""
    spec = toy_spec()
    if "computer" not in COMPUTERS:
        COMPUTERS["computer"] = Measured(spec, TOY).exchange.computer
    measured = Measured(spec, TOY, workers=workers, faults=faults, reverse=reverse, computer=COMPUTERS["computer"])
    measurement = measured.measurement
    found = [measurement.gradient(), measurement.traces(told)]
    found += [measurement.batches(draw, size, 20, told).squared for size in (1, 5, 700) for draw in DRAWS]
    return b"".join(each.tobytes() for each in found), measured


def test_the_same_bits_for_any_number_of_workers_and_order_of_answers():
    alone, _ = bits(workers=1)
    for workers in (2, 3, 7):
        for reverse in (False, True):
            assert bits(workers=workers, reverse=reverse)[0] == alone


@pytest.mark.parametrize(
    ("during", "step"),
    [(GradientRequest, 0), (RowDistancesRequest, 1), (BatchDistancesRequest, 2), (BatchDistancesRequest, 7)],
)
@pytest.mark.parametrize("kind", ["kill", "die after", "hang", "raise", "slow", "notice", "answer twice"])
def test_the_same_bits_whatever_happens_to_a_worker(kind, during, step):
    undisturbed, _ = bits()
    fault = Fault(kind, 1, step, during)
    found, measured = bits(fault)
    assert measured.exchange.fired == {fault: 1}
    assert found == undisturbed


def test_no_leaf_of_the_gradient_is_doubted_and_few_are_computed_twice():
    """The sum of many leaves is far larger than any of the few by which it is learned what a leaf takes."""
    spec = toy_spec(model={"kind": "linear"})
    measured = Measured(spec, toy_dataset(rows=20_000, shards=4))
    measured.measurement.gradient()
    asked = [r.stop - r.start for _, r in measured.exchange.sent if isinstance(r, GradientRequest)]
    assert sum(asked) == measured.problem.sampling.shards + 2 == 81


PATIENCE = Patience(hang_seconds=2.0, late_seconds=0.05, first_seconds=4.0)


def test_many_leaves_at_once_are_no_hang():
    """A leaf takes 0.2 s, the 40 of a worker 6 s; nothing would be known of that, and 4 s be a hang, without a rehearsal."""
    slow = [Fault("slow", worker, 0, seconds=seconds) for seconds in (0.2, 6.0) for worker in range(2)]
    spec = toy_spec(model={"kind": "linear"})
    measured = Measured(spec, toy_dataset(rows=20_000, shards=4), faults=slow, patience=PATIENCE)
    measured.measurement.gradient()
    assert measured.exchange.fired.total() == 4
    assert measured.measurement._rounds.members.losses == 0


def patient(*faults):
    """A measurement with its own clock, on which each wait takes 10 ms; after g, tr Σ and three rounds of single rows."""
    bits()
    measured = Measured(toy_spec(), TOY, faults=faults, computer=COMPUTERS["computer"], patience=PATIENCE)
    pass_time(measured.exchange, 0.01)
    measurement = measured.measurement
    measurement.gradient(), measurement.traces(told)
    for _ in range(3):
        measurement.batches("with_replacement", 1, 20, told)
    return measured, measurement


def test_a_worker_may_take_longer_for_larger_batches():
    """As many repeats of 700 rows as there were of one: 3 s are not a hang, though 10 times what is usual would be 0.1 s."""
    faults = [Fault("slow", worker, 6, BatchDistancesRequest, seconds=3.0) for worker in range(2)]
    measured, measurement = patient(*faults)
    measurement.batches("with_replacement", 700, 20, told)
    assert measured.exchange.fired.total() == 2
    assert measurement._rounds.members.losses == 0


def test_a_worker_that_hangs_in_a_larger_batch_is_killed_all_the_same():
    measured, measurement = patient(Fault("hang", 1, 6, BatchDistancesRequest))
    pass_time(measured.exchange, 0.5)
    measurement.batches("with_replacement", 2, 20, told)
    for _ in range(9):
        measurement.batches("with_replacement", 2, 20, told)
    assert measurement._rounds.members.losses == 1


def test_a_worker_that_is_asked_for_distances_for_the_first_time_may_take_longer():
    """Worker 1 is given notice in the gradient's round; the one in its place has three programs to compile."""
    faults = [Fault("notice", 1, 2, BatchDistancesRequest), Fault("slow", 1, 4, BatchDistancesRequest, seconds=3.5)]
    measured, measurement = patient(*faults)
    pass_time(measured.exchange, 0.1)
    for _ in range(60):
        measurement.batches("with_replacement", 1, 20, told)
    assert measured.exchange.started == [1]
    assert measured.exchange.fired.total() == 2
    assert measurement._rounds.members.losses == 0


def test_a_computation_that_raises_is_named():
    opened, request = OpenRound(4, None, 0.0), BatchDistancesRequest(2, 1, 0, 3, 0, 64, True)
    opened.fail(RequestFailed(0, request, "ZeroDivisionError"))
    with pytest.raises(LeafError, match=r"worker 1 failed in step 2 on batches of 64 rows 0 to 2 "):
        opened.fail(RequestFailed(1, request, "ZeroDivisionError"))


def test_what_is_not_finite_is_refused():
    measured = Measured(toy_spec(), TOY)
    measured.exchange.states[0].theta[:] = np.inf
    with pytest.raises(DivergedError, match="the gradient is not finite"):
        measured.measurement.gradient()


def test_rounds_are_no_longer_than_they_must_be_and_progress_is_told():
    _, measured = bits()
    done = []
    measured.exchange.sent.clear()
    measured.measurement.batches("with_replacement", 700, 200, done.append)
    assert done == [93 * 700, 93 * 700, 14 * 700]
    assert {request.first for _, request in measured.exchange.sent} == {0, 93, 186}


def test_dealing_anew_keeps_the_order():
    spec = toy_spec()
    one = dealt_anew(TOY, 1)
    for shards in (1, 3, 7, 700):
        again = dealt_anew(dealt_anew(TOY, shards), 1)
        assert again.shards[0][0].tobytes() == one.shards[0][0].tobytes()
        assert again.shards[0][1].tobytes() == one.shards[0][1].tobytes()
    problem = measured_problem(Measured(spec, TOY).problem)
    assert [len(y) for _, y in dealt_anew(TOY, 3).shards] == problem.split_rows("train")
