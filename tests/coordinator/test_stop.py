import math

import pytest

from shardsgd.coordinator.stop import Progress, fraction_done, stop_reason
from shardsgd.spec import Stop


def after_epochs(losses, validation=None):
    progress = Progress()
    for epoch, loss in enumerate(losses):
        progress = progress.with_step(loss, 10).with_epoch(None if validation is None else validation[epoch])
    return progress


@pytest.mark.parametrize(
    ("rules", "losses", "validation", "steps", "seconds", "expected"),
    [
        ({"epochs": 2}, [1, 1], None, 20, 0, "2 epochs done"),
        ({"epochs": 3}, [1, 1], None, 20, 0, None),
        ({"steps": 20}, [1], None, 20, 0, "20 steps done"),
        ({"steps": 21}, [1], None, 20, 0, None),
        ({"seconds": 1.5}, [], None, 3, 1.5, "1.5 seconds over"),
        ({"seconds": 1.5}, [], None, 3, 1.4, None),
        ({"tolerance": 0.1}, [1.0], None, 1, 0, None),
        ({"tolerance": 0.1}, [1.0, 0.95], None, 2, 0, "changed by 0.05"),
        ({"tolerance": 0.1}, [1.0, 0.8], None, 2, 0, None),
        ({"tolerance": 0.1}, [1.0, 1.05], None, 2, 0, "changed by 0.05"),
        ({"target_loss": 0.5}, [0.4], [0.6], 1, 0, None),
        ({"target_loss": 0.5}, [0.6], [0.5], 1, 0, "reached the target"),
        ({"target_loss": 0.5}, [0.4], None, 1, 0, "reached the target"),
        ({"patience": 2}, [1, 1, 1], [0.5, 0.6, 0.5], 3, 0, "no better loss than 0.5 in 2"),
        ({"patience": 2}, [1, 1, 1], [0.5, 0.6, 0.4], 3, 0, None),
        ({"patience": 2}, [0.5, 0.6, 0.7], None, 3, 0, "no better loss than 0.5"),
        ({"patience": 2}, [1, 1, 1], [math.nan, 0.6, 0.5], 3, 0, None),
        ({"patience": 2}, [1, 1], [math.nan, math.nan], 2, 0, "no better loss than inf"),
        ({"epochs": 9, "steps": 3}, [1], None, 3, 0, "3 steps done"),
    ],
)
def test_the_first_rule_that_holds_stops(rules, losses, validation, steps, seconds, expected):
    reason = stop_reason(Stop(**rules), after_epochs(losses, validation), steps=steps, seconds=seconds)
    assert (reason is None) if expected is None else (reason is not None and expected in reason)


def test_the_loss_of_an_epoch_weighs_steps_by_their_rows():
    progress = Progress().with_step(1.0, 30).with_step(4.0, 10).with_epoch(None)
    assert progress.epoch_loss == pytest.approx(1.75)


def test_share_done_is_that_of_the_nearest_rule():
    def share(**rules):
        return fraction_done(Stop(**rules), steps=30, steps_per_epoch=10, seconds=1.0)

    assert share(epochs=6) == 0.5
    assert share(epochs=6, steps=40) == 0.75
    assert share(seconds=10.0, patience=3) == pytest.approx(0.1)
    assert share(tolerance=0.1) is None
    assert share(epochs=1) == 1.0
