"""Stop rules: pure decisions from what a run has seen so far, so that a resumed run decides the same."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from shardsgd.spec import Stop


@dataclass(frozen=True)
class Progress:
    """What the stop rules remember.

    Attributes:
        epochs: epochs closed: all their steps done, the held-out rows evaluated.
        epoch_loss_sum: Σ rows · loss over the steps of the open epoch.
        epoch_rows: Σ rows of these steps.
        epoch_loss: training loss of the last closed epoch: the mean of its steps' losses by rows. For B = n that is L(θ_t).
        change: its distance from the epoch before.
        target: the loss that `target_loss` and `patience` look at: validation, or training where nothing is held out.
        best: the lowest `target` so far.
        without_better: evaluations since then.
    """

    epochs: int = 0
    epoch_loss_sum: float = 0.0
    epoch_rows: int = 0
    epoch_loss: float | None = None
    change: float | None = None
    target: float | None = None
    best: float | None = None
    without_better: int = 0

    def with_step(self, loss: float, rows: int) -> Progress:
        """After a step of `rows` rows whose mean loss was `loss`."""
        return replace(self, epoch_loss_sum=self.epoch_loss_sum + loss * rows, epoch_rows=self.epoch_rows + rows)

    def with_epoch(self, validation_loss: float | None) -> Progress:
        """After the last step of an epoch and the evaluation of the held-out rows, if any."""
        epoch_loss = self.epoch_loss_sum / self.epoch_rows
        target = epoch_loss if validation_loss is None else validation_loss
        better = target < (math.inf if self.best is None else self.best)
        return Progress(
            epochs=self.epochs + 1,
            epoch_loss=epoch_loss,
            change=None if self.epoch_loss is None else abs(epoch_loss - self.epoch_loss),
            target=target,
            best=target if better else self.best,
            without_better=0 if better else self.without_better + 1,
        )


def stop_reason(rules: Stop, progress: Progress, *, steps: int, seconds: float) -> str | None:
    """The first rule that holds, in words, or None while training goes on.

    Args:
        rules: of the spec.
        progress: so far.
        steps: updates done.
        seconds: wall-clock seconds in the step loop.
    """
    if rules.epochs is not None and progress.epochs >= rules.epochs:
        return f"{rules.epochs} epochs done"
    if rules.steps is not None and steps >= rules.steps:
        return f"{rules.steps} steps done"
    if rules.seconds is not None and seconds >= rules.seconds:
        return f"{rules.seconds:g} seconds over"
    if rules.tolerance is not None and progress.change is not None and progress.change <= rules.tolerance:
        return f"training loss changed by {progress.change:.3g} in an epoch, tolerance {rules.tolerance:g}"
    if rules.target_loss is not None and progress.target is not None and progress.target <= rules.target_loss:
        return f"loss {progress.target:.6g} reached the target {rules.target_loss:g}"
    if rules.patience is not None and progress.without_better >= rules.patience:
        best = math.inf if progress.best is None else progress.best
        return f"no better loss than {best:.6g} in {rules.patience} evaluations"
    return None


def fraction_done(rules: Stop, *, steps: int, steps_per_epoch: int, seconds: float) -> float | None:
    """Share of the work until the nearest countable rule; None where only losses decide."""
    shares = [
        done / limit
        for done, limit in (
            (steps, rules.steps),
            (steps / steps_per_epoch, rules.epochs),
            (seconds, rules.seconds),
        )
        if limit is not None
    ]
    return min(1.0, max(shares)) if shares else None
