"""Following jobs: every watcher reads the store at its own pace, and is woken when there is more."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from shardsgd.coordinator.service.jobs import Event, JobRecord
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.states import ENDED
from shardsgd.coordinator.service.store import JobStore

# Read and sent at a time.
_BATCH = 500
# A watcher that is so many events behind what has happened since it came is too slow, and is sent no metrics of these.
_LAG = 2_000
# Newest events of a job, kept so that many watchers of one job do not all read the store.
_REMEMBERED = 4_000


@dataclass(frozen=True)
class Left:
    """Metrics that a slow watcher is not sent.

    Attributes:
        first_sequence: number of the first.
        sequence: number of the last.
        at: when that was, in Unix seconds.
    """

    first_sequence: int
    sequence: int
    at: float


def thinned(events: Sequence[Event], keep_until: int) -> Iterator[Event | Left]:
    """Events without metrics, and in place of each row of these what was left out.

    Args:
        events: in order.
        keep_until: metrics up to this number are kept all the same.
    """
    left: Left | None = None
    for event in events:
        if event.kind == "metrics" and event.sequence > keep_until:
            left = Left(left.first_sequence if left else event.sequence, event.sequence, event.at)
            continue
        if left:
            yield left
            left = None
        yield event
    if left:
        yield left


class Feed:
    """What the watchers of a service wait for."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._recent: dict[str, deque[Event]] = {}
        self._closing = asyncio.Event()
        self._lock = asyncio.Lock()
        self._bells: dict[str, asyncio.Event] = {}
        self._watchers: defaultdict[str, int] = defaultdict(int)

    async def announce(self, job_id: str, last_sequence: int) -> None:
        """Says that a job has events up to a number; to be called after every change."""
        recent = self._recent.get(job_id)
        if recent is not None:
            async with self._lock:
                after = recent[-1].sequence if recent else max(0, last_sequence - _REMEMBERED)
                if after < last_sequence:
                    recent.extend(await asyncio.to_thread(self._store.events, job_id, after, _REMEMBERED))
        self._ring(job_id)

    def close(self) -> None:
        """Ends all streams, as soon as each is asked for more."""
        self._closing.set()
        for job_id in list(self._bells):
            self._ring(job_id)

    async def follow(self, record: JobRecord, after: int) -> AsyncGenerator[Event | Left, None]:
        """Events of a job after a number, until it has ended.

        Raises:
            ServiceError: the service stops, or the job was deleted.
        """
        job_id, keep_until = record.job_id, record.last_sequence
        self._watchers[job_id] += 1
        self._recent.setdefault(job_id, deque(maxlen=_REMEMBERED))
        try:
            while True:
                bell = self._bells.setdefault(job_id, asyncio.Event())
                while not self._closing.is_set() and (events := await self._after(job_id, after)):
                    slow = self._newest(job_id) - max(after, keep_until) > _LAG
                    for event in thinned(events, keep_until) if slow else events:
                        after = event.sequence
                        yield event
                        if self._closing.is_set():
                            break
                    if _is_end(events[-1]):
                        return
                if self._closing.is_set():
                    raise ServiceError(
                        Reason.SHUTTING_DOWN,
                        f"the service stops; go on with after_sequence = {after}",
                        metadata={"after_sequence": str(after)},
                    )
                if self._newest(job_id) < after and await self._has_ended(job_id):
                    return
                await bell.wait()
        finally:
            self._watchers[job_id] -= 1
            if not self._watchers[job_id]:
                del self._watchers[job_id], self._recent[job_id]
                self._bells.pop(job_id, None)

    async def _after(self, job_id: str, after: int) -> Sequence[Event]:
        recent = self._recent[job_id]
        if recent and recent[0].sequence <= after + 1:
            # Numbers are without gap.
            first = after + 1 - recent[0].sequence
            return [recent[i] for i in range(first, min(first + _BATCH, len(recent)))]
        return await asyncio.to_thread(self._store.events, job_id, after, _BATCH)

    def _newest(self, job_id: str) -> int:
        recent = self._recent[job_id]
        return recent[-1].sequence if recent else 0

    async def _has_ended(self, job_id: str) -> bool:
        now = await asyncio.to_thread(self._store.get, job_id)
        if now is None:
            raise ServiceError(Reason.JOB_NOT_FOUND, f"{job_id}: deleted")
        return now.state in ENDED

    def _ring(self, job_id: str) -> None:
        # A new one for whoever waits from now on.
        if bell := self._bells.pop(job_id, None):
            bell.set()


def _is_end(event: Event) -> bool:
    return event.kind == "state" and event.body["state"] in ENDED
