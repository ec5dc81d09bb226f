"""What a round has got so far: which units are answered, and which answers are in doubt. No clock, no workers, no transport."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shardsgd.coordinator.doubts import MOST_ANSWERS, audited, judge, largest_norm, plausible
from shardsgd.coordinator.plan import Again, Range
from shardsgd.errors import JobError, LeafError
from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    EvaluationRequest,
    Gradients,
    Reply,
    Request,
    RequestFailed,
    UpdateRequest,
    WorkerId,
)

# Failures of the same units, each with another error, before the job gives up.
_MOST_FAILURES = 3


class OpenRound:
    """Answers to the units of one round.

    No worker may compute a part of what it has answered, together with something else: its sum would be written over one that
    counts. So units whose answer is in doubt are asked for as the same range, and once a part of them is answered no more.

    Args:
        units: how many there are.
        usual: the largest ‖sum‖² of the step before; None if there was none.
        verify: share of the gradient answers that are computed twice and compared.

    Attributes:
        replies: answers that count; together they hold no unit twice.
        largest: the largest ‖sum‖² among them.
        distrusted: workers whose answer was not confirmed, or who failed where another did not; with the reason.
    """

    def __init__(self, units: int, usual: float | None, verify: float) -> None:
        self.units = units
        self.replies: list[Reply] = []
        self.largest: float | None = None
        self.distrusted: list[tuple[WorkerId, str]] = []
        self._usual = usual
        self._verify = verify
        self._done: set[int] = set()
        self._held: dict[Range, list[Gradients]] = {}
        self._failed: dict[Range, list[RequestFailed]] = {}
        # By identity, as another worker may take a dead one's number.
        self._of_the_dead: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether every unit has an answer that counts."""
        return len(self._done) == self.units

    @property
    def doubtful(self) -> bool:
        """Whether an answer has to be confirmed, or a worker is distrusted."""
        return bool(self._held or self._failed or self.distrusted)

    @property
    def answered(self) -> set[int]:
        """Units that somebody has answered, be it in doubt or with a failure."""
        return self._done.union(*(range(*units) for units in (*self._held, *self._failed)))

    def again(self) -> list[Again]:
        """What must be computed once more."""
        by: dict[Range, list[WorkerId]] = {}
        for tried in (self._held, self._failed):
            for units, events in tried.items():
                by.setdefault(units, []).extend(event.worker for event in events)
        return [Again(*units, tuple(workers)) for units, workers in by.items()]

    def answer(self, reply: Reply) -> bool:
        """Takes an answer; False if it is not wanted any more.

        Raises:
            JobError: workers do not agree.
        """
        request = reply.request
        units = request.start, request.stop
        if not self._done.isdisjoint(range(*units)):
            return False
        if isinstance(reply, Gradients):
            largest = largest_norm(reply)
            believed = plausible(largest, self._usual) and not audited(request.step, request.start, self._verify)
            if (not believed or units in self._held) and not self._settled(units, reply, believed=believed):
                return True
            if math.isfinite(largest):
                self.largest = max(largest, self.largest or 0.0)
        self._accept(units, reply)
        return True

    def mourn(self, worker: WorkerId) -> None:
        """Takes the loss of a worker: whoever takes its number has not given its answers."""
        answers = [answer for answers in self._held.values() for answer in answers if answer.worker == worker]
        failures = [event for events in self._failed.values() for event in events if event.worker == worker]
        self._of_the_dead.update(map(id, [*answers, *failures]))

    def fail(self, event: RequestFailed) -> None:
        """Takes a failure.

        Raises:
            LeafError: others failed on the same units too.
        """
        request = event.request
        units = request.start, request.stop
        if not self._done.isdisjoint(range(*units)):
            return
        before = self._failed.setdefault(units, [])
        same = [other.worker for other in before if other.error == event.error]
        before.append(event)
        if same or len(before) >= _MOST_FAILURES:
            raise LeafError(_failure(event, before[:-1]))

    def _settled(self, units: Range, reply: Gradients, *, believed: bool) -> bool:
        """Compares an answer with those before it; False if another one is needed."""
        answers = self._held.setdefault(units, [])
        answers.append(reply)
        verdict = judge(answers, believed=believed)
        for answer in verdict.refuted:
            self._distrust(answer, f"its answer for {_named(reply.request)} was not confirmed")
        if not verdict.accepted and len(answers) >= MOST_ANSWERS:
            by = ", ".join(str(answer.worker) for answer in answers)
            raise JobError(
                f"workers {by} all give other gradients for {_named(reply.request)} of step {reply.request.step}"
            )
        return verdict.accepted

    def _distrust(self, event: Gradients | RequestFailed, reason: str) -> None:
        if id(event) not in self._of_the_dead and all(event.worker != worker for worker, _ in self.distrusted):
            self.distrusted.append((event.worker, reason))

    def _accept(self, units: Range, reply: Reply) -> None:
        self.replies.append(reply)
        self._done.update(range(*units))
        if not self._held and not self._failed:
            return
        for event in self._failed.get(units, ()):
            self._distrust(event, f"it failed in what did not fail when it was repeated: {event.error}")
        # What overlaps and is not done is nobody's any more, and will be planned afresh.
        for waiting in (self._held, self._failed):
            for other in [other for other in waiting if other[0] < units[1] and units[0] < other[1]]:
                del waiting[other]


def _failure(event: RequestFailed, before: Sequence[RequestFailed]) -> str:
    request = event.request
    others = f" (and so did worker {', '.join(str(other.worker) for other in before)})"
    return f"worker {event.worker} failed in step {request.step} on {_named(request)}{others}:\n{event.traceback}"


def _named(request: Request) -> str:
    units = "leaves"
    if isinstance(request, EvaluationRequest):
        units = f"{request.split} chunks"
    elif isinstance(request, UpdateRequest):
        units = "blocks"
    elif isinstance(request, BatchDistancesRequest):
        units = f"batches of {request.batch} rows"
    return f"{units} {request.start} to {request.stop - 1}"
