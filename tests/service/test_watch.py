"""Following jobs: every event once and in order, however slow the watcher, whatever happens meanwhile."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.service.jobs import Event, NewEvent, NewJob
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.states import JobState
from shardsgd.coordinator.service.store import JobStore
from shardsgd.coordinator.service.watch import Feed, Left, thinned

AT = 1e9


def metrics(step):
    return NewEvent("metrics", AT, {"step": step})


def lines(count):
    return [NewEvent("log", AT, {"text": str(i)}) for i in range(count)]


@pytest.fixture
def store(tmp_path):
    opened = JobStore(tmp_path / "store")
    opened.create(NewJob("a", "me", "", "f", "", 0, 1, AT))
    opened.change("a", state=JobState.STARTING, at=AT)
    opened.change("a", state=JobState.RUNNING, at=AT)
    yield opened
    opened.close()


def end(store, state=JobState.SUCCEEDED):
    return store.change("a", state=state, at=AT).last_sequence


async def collect(feed, store, after=0):
    return [event async for event in feed.follow(store.get("a"), after)]


def test_an_ended_job_is_told_from_the_first_event_to_the_last(store):
    store.append("a", lines(1200))
    last = end(store)
    events = asyncio.run(collect(Feed(store), store))
    assert [event.sequence for event in events] == list(range(1, last + 1))
    assert events[-1].body["state"] == "SUCCEEDED"
    assert asyncio.run(collect(Feed(store), store, after=last)) == []
    assert [event.sequence for event in asyncio.run(collect(Feed(store), store, after=last - 2))] == [last - 1, last]


def test_many_watchers_of_a_running_job_each_see_every_event_once(store):
    feed = Feed(store)

    async def run():
        watchers = [asyncio.create_task(collect(feed, store, after=i % 4)) for i in range(200)]
        for _ in range(30):
            last = await asyncio.to_thread(store.append, "a", lines(7))
            await feed.announce("a", last)
        await feed.announce("a", end(store))
        return await asyncio.gather(*watchers)

    for i, events in enumerate(asyncio.run(run())):
        assert [event.sequence for event in events] == list(range(i % 4 + 1, store.get("a").last_sequence + 1))


def test_an_event_between_the_last_look_and_the_wait_is_not_missed(store):
    """Announced while the watcher looks at the store: it must look again rather than wait."""
    feed = Feed(store)

    async def run():
        watcher = asyncio.create_task(collect(feed, store))
        for _ in range(300):
            await asyncio.sleep(0)
            await feed.announce("a", store.append("a", lines(1)))
        await feed.announce("a", end(store))
        return await watcher

    assert [event.sequence for event in asyncio.run(run())] == list(range(1, store.get("a").last_sequence + 1))


def test_a_watcher_too_slow_for_what_happens_meanwhile_is_told_what_it_is_not_sent(store):
    feed = Feed(store)

    async def run():
        events, stream = [], feed.follow(store.get("a"), 0)
        events.append(await anext(stream))
        for start in range(0, 6000, 500):
            await feed.announce("a", store.append("a", [metrics(step) for step in range(start, start + 500)]))
        await feed.announce("a", store.append("a", lines(1)))
        await feed.announce("a", end(store))
        return events + [event async for event in stream]

    events = asyncio.run(run())
    left = [event for event in events if isinstance(event, Left)]
    assert left
    told = []
    for event in events:
        told += range(event.first_sequence, event.sequence + 1) if isinstance(event, Left) else [event.sequence]
    assert told == list(range(1, store.get("a").last_sequence + 1)), "nothing twice, nothing missing"
    assert [event.kind for event in events if not isinstance(event, Left)][-2:] == ["log", "state"]


def test_who_comes_late_is_told_all_that_had_happened_before(store):
    store.append("a", [metrics(step) for step in range(6000)])
    end(store)
    events = asyncio.run(collect(Feed(store), store))
    assert not any(isinstance(event, Left) for event in events)


def test_a_service_that_stops_says_where_to_go_on(store):
    feed = Feed(store)

    async def run():
        stream = feed.follow(store.get("a"), 0)
        seen = [await anext(stream) for _ in range(2)]
        feed.close()
        with pytest.raises(ServiceError) as caught:
            await anext(stream)
        assert caught.value.reason is Reason.SHUTTING_DOWN
        assert caught.value.metadata == {"after_sequence": str(seen[-1].sequence)}

    asyncio.run(run())


def test_a_watcher_that_waits_is_woken_when_the_service_stops(store):
    feed = Feed(store)

    async def run():
        stream = feed.follow(store.get("a"), 0)
        seen = [await anext(stream) for _ in range(3)]
        more = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(store.get, "a")
        feed.close()
        with pytest.raises(ServiceError):
            await more
        assert [event.sequence for event in seen] == [1, 2, 3]

    asyncio.run(run())


def test_a_deleted_job_is_said_to_be_gone(store):
    record = store.get("a")
    end(store)
    store.delete("a")

    async def run():
        return [event async for event in Feed(store).follow(record, 3)]

    with pytest.raises(ServiceError) as caught:
        asyncio.run(run())
    assert caught.value.reason is Reason.JOB_NOT_FOUND


@given(st.lists(st.sampled_from(["metrics", "log"]), max_size=30), st.integers(0, 30))
def test_thinning_leaves_out_metrics_only_and_says_which(kinds, keep_until):
    events = [Event(kind, AT, {}, sequence) for sequence, kind in enumerate(kinds, start=1)]
    sent = list(thinned(events, keep_until))
    told = []
    for event in sent:
        told += range(event.first_sequence, event.sequence + 1) if isinstance(event, Left) else [event.sequence]
    assert told == [event.sequence for event in events]
    left = {
        number for each in sent if isinstance(each, Left) for number in range(each.first_sequence, each.sequence + 1)
    }
    assert left == {event.sequence for event in events if event.kind == "metrics" and event.sequence > keep_until}
