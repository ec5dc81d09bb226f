"""Pages: sizes within bounds, and tokens that are good for their own query only."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.service.pages import cursor_of, page_size, page_token
from shardsgd.coordinator.service.problems import Reason, ServiceError


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_sizes_have_a_default_and_a_bound(asked, given):
    assert page_size(asked) == given


def test_a_negative_size_is_refused():
    with pytest.raises(ServiceError) as caught:
        page_size(-1)
    assert [problem.path for problem in caught.value.fields] == ["page_size"]


@given(st.integers(0, 2**62), st.text(max_size=20))
def test_a_token_stands_for_its_cursor(cursor, query):
    assert cursor_of(page_token(cursor, query), query) == cursor


def test_no_token_is_the_first_page():
    assert cursor_of("", "all") is None


@given(st.one_of(st.text(max_size=40), st.binary(max_size=40).map(lambda b: base64.urlsafe_b64encode(b).decode())))
def test_absurd_tokens_are_refused(token):
    if token:
        with pytest.raises(ServiceError) as caught:
            cursor_of(token, "all")
        assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_a_token_of_another_query_is_refused():
    with pytest.raises(ServiceError):
        cursor_of(page_token(7, "mine"), "everybody's")
