"""What is advised, and when nothing is, from noise scales and step times that are made up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.advice_view import advice_object
from shardsgd.coordinator.advice.decide import StepTime, decide, goodput
from shardsgd.coordinator.advice.law import NoiseScale
from shardsgd.coordinator.advice.sizes import batch_sizes
from shardsgd.coordinator.advice.words import sentences

PRESENT = 64
SIZES = (16, 32, 64, 128, 256)


def time(batch, workers=2, *, overhead=2e-3, row=2e-5, scatter=0.02):
    """A step of so many seconds and seconds a row, its quartiles a share of it away."""
    seconds = overhead + row * batch / workers
    return StepTime(batch, workers, seconds, seconds * (1 - scatter), seconds * (1 + scatter), 100)


def advised(noise, times, rate=0.1):
    present = next(each for each in times if (each.batch, each.workers) == (PRESENT, 2))
    return decide(noise, "a test", times, present, rate)


def test_much_noise_and_little_time_a_row_favour_a_larger_batch_with_its_rate():
    advice = advised(NoiseScale(1000.0, 800.0, 1300.0), [time(batch) for batch in SIZES])
    assert (advice.verdict, advice.favoured.time.batch) == ("change", 256)
    assert advice.favoured.learning_rate == pytest.approx(0.1 * (1 + 1000 / 64) / (1 + 1000 / 256))
    ratio = (1 + 1000 / 64) / (1 + 1000 / 256) * time(64).seconds / time(256).seconds
    assert advice.favoured.goodput == pytest.approx(ratio)
    assert advice.favoured.goodput_low < ratio < advice.favoured.goodput_high
    assert advice.present.goodput == advice.present.goodput_low == advice.present.goodput_high == 1
    assert any("largest batch size measured" in sentence for sentence in sentences(advice))
    assert any("Should it diverge" in sentence for sentence in sentences(advice))


def test_little_noise_and_much_time_a_row_favour_a_smaller_batch():
    advice = advised(NoiseScale(10.0, 8.0, 12.0), [time(batch, overhead=1e-4) for batch in SIZES])
    assert (advice.verdict, advice.favoured.time.batch) == ("change", 16)
    assert not any("Should it diverge" in sentence for sentence in sentences(advice))


def test_more_workers_are_favoured_only_where_they_are_faster():
    noise = NoiseScale(64.0, 60.0, 70.0)
    fast = StepTime(PRESENT, 1, 1e-3, 0.99e-3, 1.01e-3, 100)
    assert advised(noise, [time(PRESENT), fast]).favoured.time.workers == 1
    slow = StepTime(PRESENT, 1, 1.0, 0.99, 1.01, 100)
    assert advised(noise, [time(PRESENT), slow]).verdict == "keep"


def test_the_present_choice_is_kept_where_it_is_the_best():
    advice = advised(NoiseScale(64.0, 60.0, 70.0), [time(batch, overhead=64 * 1e-5) for batch in SIZES])
    assert (advice.verdict, advice.favoured) == ("keep", advice.present)


def test_choices_whose_difference_is_less_than_the_scatter_of_times_are_equal_and_the_present_one_is_kept():
    noise = NoiseScale(100.0, 99.0, 101.0)
    quiet = advised(noise, [time(batch, scatter=0.001) for batch in SIZES])
    assert quiet.verdict == "change"
    assert 1 < quiet.favoured.goodput < 1.3
    noisy = advised(noise, [time(batch, scatter=0.2) for batch in SIZES])
    assert noisy.favoured.time.batch == quiet.favoured.time.batch
    assert noisy.verdict == "keep"
    assert "scatter" in noisy.reason


@pytest.mark.parametrize(
    ("noise", "why"),
    [
        (NoiseScale(None, None, math.inf), "no noise scale"),
        (NoiseScale(1000.0, None, math.inf), "no noise scale"),
        (NoiseScale(None, 100.0, math.inf), "no noise scale"),
        (NoiseScale(1000.0, 20.0, math.inf), "no upper bound"),
        (NoiseScale(1000.0, 1.0, 2000.0), "where in its interval the noise scale lies"),
        (NoiseScale(50.0, 45.0, math.inf), "no upper bound"),
    ],
)
def test_what_the_interval_does_not_tell_is_not_advised(noise, why):
    advice = advised(noise, [time(batch, overhead=5e-4) for batch in SIZES])
    assert advice.verdict == "cannot tell"
    assert why in advice.reason
    assert any("Cannot tell" in sentence and why in sentence for sentence in sentences(advice))
    # JSON has no infinities.
    assert "inf" not in repr(advice_object(advice)).lower()


def test_a_larger_batch_is_advised_without_an_upper_bound_where_every_noise_scale_favours_it():
    advice = advised(NoiseScale(5000.0, 2000.0, math.inf), [time(batch) for batch in SIZES])
    assert (advice.verdict, advice.favoured.time.batch) == ("change", 256)


@given(
    st.floats(1, 1e4),
    st.floats(0.01, 1),
    st.floats(1, 100) | st.just(math.inf),
    st.floats(1e-5, 1e-1),
    st.floats(1e-7, 1e-3),
    st.floats(0, 0.3),
)
def test_a_change_is_for_the_better_wherever_in_its_interval_the_noise_scale_lies(
    scale, below, above, overhead, row, scatter
):
    noise = NoiseScale(scale, scale * below, scale * above)
    times = [time(batch, many, overhead=overhead, row=row, scatter=scatter) for batch in SIZES for many in (1, 2)]
    advice = advised(noise, times)
    assert advice.favoured.goodput == max(choice.goodput for choice in advice.choices)
    assert advice.batch_low <= advice.favoured.time.batch <= advice.batch_high
    for end in (noise.low, noise.rows, noise.high):
        if advice.verdict == "change":
            assert goodput(advice.favoured.time, advice.present.time, end) > 1
            assert advice.favoured.goodput_low <= goodput(advice.favoured.time, advice.present.time, end) * (1 + 1e-9)
        if advice.verdict == "keep":
            # No other is faster by more than both times' quartiles.
            slack = (1 + scatter) / (1 - scatter) * (1 + 1e-9)
            assert all(goodput(time, advice.present.time, end) <= slack for time in times)
    assert sentences(advice)


@given(st.floats(1e-5, 1), st.floats(1e-8, 1e-2), st.floats(1, 1e5))
def test_a_series_of_doublings_comes_within_6_percent_of_the_best_batch_size(overhead, row, scale):
    """The bound of `batch_sizes`: (√2 + 1/√2)/2 = 1.0607, where the best size is within the series."""

    def seconds_of_progress(batch):
        return (overhead + row * batch) * (1 + scale / batch)

    best = math.sqrt(scale * overhead / row)
    sizes = batch_sizes(64, 2**30, 256.0)
    if sizes[0] / math.sqrt(2) <= best <= sizes[-1] * math.sqrt(2):
        assert min(map(seconds_of_progress, sizes)) <= 1.0607 * seconds_of_progress(best)


def test_quartiles_of_step_times():
    times = StepTime.of(64, 2, [4.0, 1.0, 2.0, 3.0, 5.0])
    assert (times.seconds_low, times.seconds, times.seconds_high, times.steps) == (2, 3, 4, 5)
    assert StepTime.of(64, 2, [3.0]).seconds_low == 3
