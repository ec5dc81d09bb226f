"""Where a job stands, what its user wants of it, and how the one follows from the other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from shardsgd.errors import InputError


class JobState(StrEnum):
    """Where a job stands; values are the names."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Intent(StrEnum):
    """What the user wants of a job; values are the names."""

    RUN = "RUN"
    PAUSE = "PAUSE"
    CANCEL = "CANCEL"


Outcome = Literal["SUCCEEDED", "FAILED", "INTERRUPTED"]

ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
HOLDS_WORKERS = frozenset({JobState.STARTING, JobState.RUNNING})

_NEXT: Mapping[JobState, frozenset[JobState]] = {
    # FAILED: what it asks for is not to be had any more, such as workers that a restarted service does not have.
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
    # SUCCEEDED: a resumed run may find that its stop rule holds already. QUEUED: it is to be tried again.
    JobState.STARTING: frozenset({JobState.RUNNING, JobState.QUEUED, JobState.PAUSED, *ENDED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.PAUSED, *ENDED}),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    **dict.fromkeys(ENDED, frozenset()),
}


class IllegalTransitionError(InputError):
    """A user asks of a job what cannot be done where it stands.

    Attributes:
        state: where it stands.
        verb: "pause", "resume" or "cancel".
        intent: what the user wanted of it before.
    """

    def __init__(self, state: JobState, verb: str, intent: Intent) -> None:
        super().__init__(state, verb, intent)
        self.state = state
        self.verb = verb
        self.intent = intent

    def __str__(self) -> str:
        is_ending = self.state not in ENDED and self.intent is Intent.CANCEL
        return f"cannot {self.verb} a job that is {'being cancelled' if is_ending else self.state}"


def may_become(state: JobState, new: JobState) -> bool:
    """Whether a job may go from one state straight to another. Staying where it is does not count."""
    return new in _NEXT[state]


def asked_to_pause(state: JobState, intent: Intent) -> tuple[JobState, Intent] | None:
    """What a request to pause does to a job.

    Returns:
        Its new state and intent; None: nothing, for it is or will be paused already.

    Raises:
        IllegalTransitionError: it has ended, or is being cancelled.
    """
    _refuse(state, intent, "pause")
    if (state, intent) == (JobState.PAUSED, Intent.PAUSE):
        return None
    if state in HOLDS_WORKERS:
        return None if intent is Intent.PAUSE else (state, Intent.PAUSE)
    return JobState.PAUSED, Intent.PAUSE


def asked_to_resume(state: JobState, intent: Intent) -> tuple[JobState, Intent] | None:
    """What a request to go on does to a job.

    One that is about to be paused stops nevertheless, and is queued again once it has.

    Returns:
        Its new state and intent; None: nothing, for it is not paused, nor to be.

    Raises:
        IllegalTransitionError: it has ended, or is being cancelled.
    """
    _refuse(state, intent, "resume")
    if state is JobState.PAUSED:
        return JobState.QUEUED, Intent.RUN
    return None if intent is Intent.RUN else (state, Intent.RUN)


def asked_to_cancel(state: JobState, intent: Intent) -> tuple[JobState, Intent] | None:
    """What a request to end does to a job.

    Returns:
        Its new state and intent; None: nothing, for it is or will be cancelled already.

    Raises:
        IllegalTransitionError: it has ended in another way.
    """
    if state in HOLDS_WORKERS:
        return None if intent is Intent.CANCEL else (state, Intent.CANCEL)
    if state is JobState.CANCELLED:
        return None
    if state in ENDED:
        raise IllegalTransitionError(state, "cancel", intent)
    return JobState.CANCELLED, Intent.CANCEL


def after_run(outcome: Outcome, intent: Intent) -> JobState:
    """Where a job stands once its run has ended.

    Args:
        outcome: of the run. INTERRUPTED with the intent RUN: the service stops, or the user has thought better of a pause.
        intent: of the user, at that time.

    Returns:
        SUCCEEDED whatever the user wanted: the result is there. A failed run of a job that is to be cancelled has done what
        the user wanted: CANCELLED. One that is to be paused cannot be resumed: FAILED.
    """
    if outcome == "SUCCEEDED":
        return JobState.SUCCEEDED
    if intent is Intent.CANCEL:
        return JobState.CANCELLED
    if outcome == "FAILED":
        return JobState.FAILED
    return JobState.PAUSED if intent is Intent.PAUSE else JobState.QUEUED


def _refuse(state: JobState, intent: Intent, verb: str) -> None:
    """Neither what has ended nor what is about to can be paused or resumed."""
    if state in ENDED or intent is Intent.CANCEL:
        raise IllegalTransitionError(state, verb, intent)
