"""Where jobs may go, and what requests and runs' ends make of them: every case."""

import pickle
from itertools import product

import pytest

from shardsgd.coordinator.service.states import (
    ENDED,
    HOLDS_WORKERS,
    IllegalTransitionError,
    Intent,
    JobState,
    after_run,
    asked_to_cancel,
    asked_to_pause,
    asked_to_resume,
    may_become,
)

QUEUED, STARTING, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELLED = JobState
RUN, PAUSE, CANCEL = Intent
BEFORE = {
    QUEUED: {STARTING, RUNNING, PAUSED},
    STARTING: {QUEUED},
    RUNNING: {STARTING},
    PAUSED: {QUEUED, STARTING, RUNNING},
    SUCCEEDED: {STARTING, RUNNING},
    FAILED: {QUEUED, STARTING, RUNNING},
    CANCELLED: {QUEUED, STARTING, RUNNING, PAUSED},
}
ILLEGAL = "illegal"
# (state, intent): what becomes of it if it is asked to pause, to resume, to cancel; None: nothing.
ASKED = {
    (QUEUED, RUN): ((PAUSED, PAUSE), None, (CANCELLED, CANCEL)),
    (QUEUED, PAUSE): ((PAUSED, PAUSE), (QUEUED, RUN), (CANCELLED, CANCEL)),
    (QUEUED, CANCEL): (ILLEGAL, ILLEGAL, (CANCELLED, CANCEL)),
    (STARTING, RUN): ((STARTING, PAUSE), None, (STARTING, CANCEL)),
    (STARTING, PAUSE): (None, (STARTING, RUN), (STARTING, CANCEL)),
    (STARTING, CANCEL): (ILLEGAL, ILLEGAL, None),
    (RUNNING, RUN): ((RUNNING, PAUSE), None, (RUNNING, CANCEL)),
    (RUNNING, PAUSE): (None, (RUNNING, RUN), (RUNNING, CANCEL)),
    (RUNNING, CANCEL): (ILLEGAL, ILLEGAL, None),
    (PAUSED, RUN): ((PAUSED, PAUSE), (QUEUED, RUN), (CANCELLED, CANCEL)),
    (PAUSED, PAUSE): (None, (QUEUED, RUN), (CANCELLED, CANCEL)),
    (PAUSED, CANCEL): (ILLEGAL, ILLEGAL, (CANCELLED, CANCEL)),
    **{(SUCCEEDED, intent): (ILLEGAL, ILLEGAL, ILLEGAL) for intent in Intent},
    **{(FAILED, intent): (ILLEGAL, ILLEGAL, ILLEGAL) for intent in Intent},
    **{(CANCELLED, intent): (ILLEGAL, ILLEGAL, None) for intent in Intent},
}
VERBS = (asked_to_pause, asked_to_resume, asked_to_cancel)
AFTER = {
    ("SUCCEEDED", RUN): SUCCEEDED,
    ("SUCCEEDED", PAUSE): SUCCEEDED,
    ("SUCCEEDED", CANCEL): SUCCEEDED,
    ("FAILED", RUN): FAILED,
    ("FAILED", PAUSE): FAILED,
    ("FAILED", CANCEL): CANCELLED,
    ("INTERRUPTED", RUN): QUEUED,
    ("INTERRUPTED", PAUSE): PAUSED,
    ("INTERRUPTED", CANCEL): CANCELLED,
}


@pytest.mark.parametrize(("state", "new"), list(product(JobState, JobState)))
def test_which_states_follow_which(state, new):
    assert may_become(state, new) == (state in BEFORE[new])


@pytest.mark.parametrize(("case", "expected"), ASKED.items(), ids=lambda case: "-".join(map(str, case)))
def test_what_a_request_does(case, expected):
    for asked, result in zip(VERBS, expected, strict=True):
        if result == ILLEGAL:
            with pytest.raises(IllegalTransitionError) as caught:
                asked(*case)
            assert (caught.value.state, caught.value.intent) == case
        else:
            assert asked(*case) == result


def test_every_case_is_above():
    assert set(ASKED) == set(product(JobState, Intent))


@pytest.mark.parametrize("case", ASKED, ids="-".join)
def test_what_a_request_does_may_be_done_and_done_again_does_nothing(case):
    for asked, result in zip(VERBS, ASKED[case], strict=True):
        if result not in (None, ILLEGAL):
            assert result[0] == case[0] or may_become(case[0], result[0])
            assert asked(*result) is None


@pytest.mark.parametrize(("case", "expected"), AFTER.items(), ids=lambda case: "-".join(map(str, case)))
def test_what_the_end_of_a_run_does(case, expected):
    assert after_run(*case) is expected
    assert all(may_become(state, expected) for state in HOLDS_WORKERS)


def test_what_has_ended_goes_nowhere():
    assert not any(may_become(state, new) for state in ENDED for new in JobState)


@pytest.mark.parametrize(
    ("state", "intent", "verb", "words"),
    [
        (SUCCEEDED, RUN, "pause", "cannot pause a job that is SUCCEEDED"),
        (FAILED, CANCEL, "resume", "cannot resume a job that is FAILED"),
        (RUNNING, CANCEL, "pause", "cannot pause a job that is being cancelled"),
    ],
)
def test_the_error_says_what_cannot_be_done_to_what_also_after_a_trip(state, intent, verb, words):
    error = IllegalTransitionError(state, verb, intent)
    assert str(pickle.loads(pickle.dumps(error))) == words
