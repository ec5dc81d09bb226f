"""The learning rate that a spec asks for, as a function of the step."""

import math

import pytest
from fakes import toy_spec

from shardsgd.coordinator.rates import learning_rates


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ({"kind": "constant"}, lambda t: 1),
        ({"kind": "polynomial", "power": 0.5}, lambda t: 1 / math.sqrt(t + 1)),
        ({"kind": "polynomial", "power": 1}, lambda t: 1 / (t + 1)),
        ({"kind": "step", "factor": 0.5, "every": 3}, lambda t: 0.5 ** (t // 3)),
        ({"kind": "exponential", "rate": 0.25}, lambda t: math.exp(-0.25 * t)),
    ],
)
def test_the_schedule_scales_the_optimizers_rate(schedule, formula):
    rate = learning_rates(toy_spec(schedule=schedule, optimizer={"kind": "sgd", "learning_rate": 0.3}))
    for step in (0, 1, 2, 3, 7, 100):
        assert rate(step) == pytest.approx(0.3 * formula(step), rel=1e-12)
    assert type(rate(5)) is float
