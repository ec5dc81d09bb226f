"""AdaScale's gain in the step loop: against the paper's formula, and the same bits as ever."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from checkpoints import ORIGIN
from fakes import toy_dataset, toy_loop, toy_spec
from trees import blocks_of

from shardsgd.coordinator.checkpoint import Job, save_checkpoint
from shardsgd.coordinator.checkpoint_reading import load_checkpoint
from shardsgd.coordinator.training import make_problem
from shardsgd.model import problem as problem_module

STEPS = 10
TUNED_FOR, BATCH, LAST = 6, 30, 13  # the last step of an epoch of 103 rows has 13
SCHEDULE = {"kind": "polynomial", "power": 0.5}


def adaptive(tuned_for=TUNED_FOR, **changes):
    return toy_spec(**{"schedule": SCHEDULE | {"scale_invariant": True, "tuned_for": tuned_for}} | changes)


def trained(spec, steps=STEPS, **options):
    loop, _ = toy_loop(spec, toy_dataset(), **options)
    records = [loop.step() for _ in range(steps)]
    return loop.state, records


def in_bytes(state):
    return [flat.tobytes() for flat in (state.theta, *state.optimizer_state)]


def adascale(records, rows):
    """r of the step after these: σ² of B₀ rows and μ², as the paper has them, smoothed with weights 0.99^age."""
    weights = 0.99 ** np.arange(len(records))[::-1]
    variance = np.average([record.noise_trace for record in records], weights=weights) / TUNED_FOR
    signal = max(0.0, np.average([record.noise_norm_squared for record in records], weights=weights))
    scale = rows / TUNED_FOR
    return (variance + signal) / (variance / scale + signal)


def test_gains_rates_and_the_schedule_are_the_papers():
    state, records = trained(adaptive())
    assert records[0].gain == 1
    expected = [1.0] + [adascale(records[:t], LAST if t % 4 == 3 else BATCH) for t in range(1, STEPS)]
    assert [record.gain for record in records] == pytest.approx(expected, rel=1e-10)
    assert max(expected) > 1.2
    passed = np.concatenate([[0.0], np.cumsum(expected)])
    rates = [0.1 * gain * (math.floor(at) + 1) ** -0.5 for gain, at in zip(expected, passed[:-1], strict=True)]
    assert [record.learning_rate for record in records] == pytest.approx(rates, rel=1e-10)
    assert state.schedule_steps == pytest.approx(passed[-1], rel=1e-10)
    assert state.step == STEPS


def test_gains_are_between_1_and_what_the_rows_allow():
    for size, record in zip([BATCH, BATCH, BATCH, LAST] * 3, trained(adaptive(), 12)[1], strict=True):
        assert 1 <= record.gain <= size / TUNED_FOR


def test_for_the_batch_it_was_tuned_for_not_a_bit_changes():
    plain, expected = trained(toy_spec(schedule=SCHEDULE))
    state, records = trained(adaptive(BATCH))
    assert in_bytes(state) == in_bytes(plain)
    assert state.schedule_steps == plain.schedule_steps == STEPS
    assert {record.gain for record in records} == {1.0}
    assert {record.gain for record in expected} == {None}
    assert [record.learning_rate for record in records] == [record.learning_rate for record in expected]


def test_a_single_estimate_is_enough_and_without_any_the_gain_is_1():
    """Four rows in four shards, five steps an epoch; the first of a run has no step before it."""
    _, records = trained(adaptive(2, batch={"size": 4, "shards": 4}), 3)
    assert records[0].gain == 1
    assert 1 < records[1].gain <= 2


def by_numbers(record):
    return {name: value for name, value in asdict(record).items() if not name.endswith("_seconds")}


def test_any_number_of_workers_updates_to_the_same_bits(monkeypatch):
    monkeypatch.setattr(problem_module, "_SHARED_BLOCKS", 4)
    with blocks_of(16):
        alone, expected = trained(adaptive(), workers=1)
        for workers in (2, 3):
            for reverse in (False, True):
                state, records = trained(adaptive(), workers=workers, updates=True, reverse=reverse)
                assert in_bytes(state) == in_bytes(alone)
                assert state.schedule_steps == alone.schedule_steps
                assert [by_numbers(record) for record in records] == [by_numbers(record) for record in expected]


@pytest.mark.parametrize("stopped_after", [1, 4, 7])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, stopped_after):
    spec = adaptive()
    layout = make_problem(spec, toy_dataset()).layout
    whole, expected = trained(spec)
    stopped, _ = trained(spec, stopped_after)
    save_checkpoint(tmp_path, stopped, Job(spec, layout, ORIGIN))
    loaded = load_checkpoint(tmp_path, layout, 1, [].append)
    assert loaded.state.schedule_steps == stopped.schedule_steps
    state, records = trained(spec, STEPS - stopped_after, state=loaded.state, workers=3)
    assert in_bytes(state) == in_bytes(whole)
    assert [record.gain for record in records] == [record.gain for record in expected[stopped_after:]]
