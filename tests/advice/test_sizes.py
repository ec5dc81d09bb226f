"""Which batch sizes and numbers of workers are timed."""

from hypothesis import example, given
from hypothesis import strategies as st

from shardsgd.coordinator.advice.sizes import batch_sizes, worker_counts


def test_a_handful_around_the_present_size_and_on_to_the_noise_scale():
    assert batch_sizes(64, 10_000, None) == (16, 32, 64, 128, 256)
    assert batch_sizes(64, 10_000, 100.0) == (16, 32, 64, 128, 256)
    assert batch_sizes(64, 10_000, 500.0) == (16, 32, 64, 128, 256, 512)
    assert batch_sizes(64, 200, 500.0) == (16, 32, 64, 128)
    assert batch_sizes(1, 10, None) == (1, 2, 4)
    assert batch_sizes(64, 10**6, 4096.0) == (16, 64, 256, 1024, 4096)


@given(st.integers(1, 10**5), st.integers(0, 10**6), st.none() | st.floats(1e-9, 1e12))
@example(1, 0, 1e300)
def test_at_most_six_with_the_present_one_none_beyond_the_rows(present, more, scale):
    sizes = batch_sizes(present, present + more, scale)
    assert present in sizes
    assert len(sizes) <= 6
    assert sorted(set(sizes)) == list(sizes)
    assert sizes[0] >= 1
    assert sizes[-1] <= present + more


def test_one_worker_half_of_them_and_all():
    assert [worker_counts(count) for count in (1, 2, 3, 4, 9)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4), (1, 5, 9)]
