"""Whether an answer can be believed. Pure.

A contribution that is not finite, or far larger than any of the step before, may be the job's own doing or a fault of the
worker's machine. Leaves are pure functions, so a second computation by somebody else tells: the same bits confirm it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardsgd.workers.exchange import Gradients

# ‖sum‖² of a node may grow so much from one step to the next before it is looked at twice: a hundredfold gradient.
_SUDDEN = 1e4
# Answers for the same leaves of which no two agree, before the job gives up.
MOST_ANSWERS = 4


def largest_norm(gradients: Gradients) -> float:
    """The largest ‖sum‖² of an answer; NaN or infinite if anything in it is not finite."""
    largest = max(gradients.norms.values())
    # max() passes over a NaN that is not the first; a sum does not.
    total = sum(gradients.norms.values()) + sum(gradients.losses.tolist())
    return largest if math.isfinite(total) else math.nan


def still_usual(largest: float | None, usual: float | None) -> float | None:
    """What is usual after a step: its largest norm, but no less than a sixteenth of before: a step of few rows tells little.

    Args:
        largest: of the step; None if all of it was in doubt.
        usual: before it.
    """
    if largest is None or usual is None:
        return usual if largest is None else largest
    return max(largest, usual / 16)


def plausible(largest: float, usual: float | None) -> bool:
    """Whether an answer's largest norm is finite and no sudden leap.

    Args:
        largest: see `largest_norm`.
        usual: the largest of the step before; None if there was none.
    """
    return math.isfinite(largest) and (usual is None or largest <= _SUDDEN * usual)


def audited(step: int, start: int, share: float) -> bool:
    """Whether an answer is one of the share of answers that are computed twice, to compare them; the same every time."""
    return share > 0 and (step * 0x9E3779B97F4A7C15 + start * 0xBF58476D1CE4E5B9) % 2**64 < share * 2**64


@dataclass(frozen=True)
class Verdict:
    """What answers for the same leaves come to.

    Attributes:
        accepted: whether the newest can be used; another is needed otherwise.
        refuted: the answers that it contradicts.
    """

    accepted: bool
    refuted: tuple[Gradients, ...] = ()


def judge(answers: Sequence[Gradients], *, believed: bool) -> Verdict:
    """Compares answers for the same leaves.

    Args:
        answers: oldest first.
        believed: whether the newest needs no confirmation.
    """
    digests = [_digest(answer) for answer in answers]
    workers = {answer.worker for answer in answers}
    agree = [answer.worker for answer, digest in zip(answers, digests, strict=True) if digest == digests[-1]]
    # A worker confirms itself only where there is nobody else.
    if not believed and (len(agree) == 1 if len(workers) == 1 else len(set(agree)) == 1):
        return Verdict(accepted=False)
    refuted = [answer for answer, digest in zip(answers, digests, strict=True) if digest != digests[-1]]
    return Verdict(accepted=True, refuted=tuple(refuted))


def _digest(gradients: Gradients) -> bytes:
    """Equal for equal gradients: every leaf's loss and squared norm, bit for bit (NaN too)."""
    norms = [gradients.norms[node] for node in sorted(gradients.norms)]
    return gradients.losses.tobytes() + np.array(norms).tobytes()
