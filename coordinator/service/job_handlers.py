"""What the service does about jobs: plain functions of a caller and a request, without gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardsgd.coordinator.service.access import Caller
from shardsgd.coordinator.service.dispatcher import Dispatcher
from shardsgd.coordinator.service.event_messages import event_message
from shardsgd.coordinator.service.files import remove_folder
from shardsgd.coordinator.service.job_messages import job_message
from shardsgd.coordinator.service.jobs import JobRecord, NewJob, StaleError
from shardsgd.coordinator.service.limits import Limits
from shardsgd.coordinator.service.pages import cursor_of, page_size, page_token
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.sources import confined, uploaded
from shardsgd.coordinator.service.states import (
    ENDED,
    Intent,
    JobState,
    asked_to_cancel,
    asked_to_pause,
    asked_to_resume,
)
from shardsgd.coordinator.service.store import JobStore
from shardsgd.coordinator.service.watch import Feed
from shardsgd.errors import FieldProblem
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec import JobSpec
from shardsgd.spec_files import parse_spec, spec_toml
from shardsgd.spec_messages import spec_from_message

_PRIORITIES = range(-100, 101)
_REQUEST_ID = re.compile(r"[0-9a-fA-F-]{1,64}|")

Asked = Callable[[JobState, Intent], tuple[JobState, Intent] | None]


@dataclass(frozen=True)
class JobHandlers:
    """Jobs of a store.

    Attributes:
        store: of jobs.
        dispatcher: runs them.
        feed: tells watchers.
        limits: of one owner.
        roots: folders that paths may lead into.
        draining: whether the service stops, and takes no jobs.
    """

    store: JobStore
    dispatcher: Dispatcher
    feed: Feed
    limits: Limits
    roots: Sequence[Path]
    draining: Callable[[], bool]

    async def create(self, caller: Caller, request: pb.CreateJobRequest) -> pb.CreateJobResponse:
        """Accepts a job; it is on disk when this returns."""
        if self.draining():
            raise ServiceError(Reason.SHUTTING_DOWN, "the service stops; try again in a moment", retry_after_s=2.0)
        _check(request)
        # As asked for: the retry of a request is the same request, whatever has become of links under the data roots.
        fingerprint = hashlib.sha256(f"{request.priority}\n{spec_toml(spec_from_message(request.spec))}".encode())
        spec = confined(spec_from_message(request.spec), self.roots).resolved()
        workers = self._workers(spec, spec.workers.count)
        job = NewJob(
            job_id=_new_id(spec),
            owner=caller.owner,
            request_id=request.request_id.lower(),
            fingerprint=fingerprint.hexdigest(),
            spec_toml=spec_toml(spec),
            priority=request.priority,
            workers=workers,
            created_at=time.time(),
        )
        record, made = await asyncio.to_thread(
            self.store.create, job, open_jobs=self.limits.open_jobs, dataset=uploaded(spec.data.source)
        )
        if made:
            self.dispatcher.wake()
        return pb.CreateJobResponse(job=self._message(record))

    async def get(self, caller: Caller, request: pb.GetJobRequest) -> pb.GetJobResponse:
        """One job."""
        return pb.GetJobResponse(job=self._message(await self.of(caller, request.job_id)))

    async def page(self, caller: Caller, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """A page of the caller's jobs; of everybody's for an administrator."""
        states = _states(request.states)
        owner = None if caller.administrator else caller.owner
        query = f"{owner}\n{','.join(sorted(states))}"
        records, cursor = await asyncio.to_thread(
            self.store.page,
            owner=owner,
            states=states,
            before=cursor_of(request.page_token, query),
            limit=page_size(request.page_size),
        )
        token = "" if cursor is None else page_token(cursor, query)
        return pb.ListJobsResponse(jobs=[self._message(record) for record in records], next_page_token=token)

    async def watch(self, caller: Caller, request: pb.WatchJobRequest) -> AsyncGenerator[pb.WatchJobResponse, None]:
        """A job's events, until it has ended."""
        record = await self.of(caller, request.job_id)
        after = request.after_sequence
        if not 0 <= after <= record.last_sequence:
            raise ServiceError(
                Reason.EVENTS_OUT_OF_RANGE,
                f"after_sequence = {after}: {record.job_id} has events 1 to {record.last_sequence}",
                metadata={"first_sequence": "1", "last_sequence": str(record.last_sequence)},
            )
        async for event in self.feed.follow(record, after):
            yield event_message(event)

    async def pause(self, caller: Caller, request: pb.PauseJobRequest) -> pb.PauseJobResponse:
        """Has a job stop and wait."""
        return pb.PauseJobResponse(job=await self._ask(caller, request.job_id, asked_to_pause))

    async def resume(self, caller: Caller, request: pb.ResumeJobRequest) -> pb.ResumeJobResponse:
        """Has a job go on."""
        return pb.ResumeJobResponse(job=await self._ask(caller, request.job_id, asked_to_resume))

    async def cancel(self, caller: Caller, request: pb.CancelJobRequest) -> pb.CancelJobResponse:
        """Has a job end."""
        return pb.CancelJobResponse(job=await self._ask(caller, request.job_id, asked_to_cancel))

    async def scale(self, caller: Caller, request: pb.ScaleJobRequest) -> pb.ScaleJobResponse:
        """Has a job go on with another number of workers."""
        record = await self.of(caller, request.job_id)
        if record.state in ENDED:
            raise ServiceError(Reason.ILLEGAL_STATE, f"cannot scale a job that is {record.state}")
        spec = parse_spec(record.spec_toml)
        most = min(spec.workers.max or spec.workers.count, spec.batch.shards)
        least = min(spec.workers.min, most)
        if not least <= request.workers <= most:
            problem = FieldProblem("workers", str(request.workers), f"must be from {least} to {most}, as the spec says")
            raise ServiceError(Reason.INVALID_ARGUMENT, str(problem), fields=(problem,))
        self._workers(spec, request.workers)
        if not await self.dispatcher.scale(record.job_id, request.workers):
            raise ServiceError(
                Reason.TOO_MANY_WORKERS,
                f"workers = {request.workers}: {self.dispatcher.free} of {self.dispatcher.capacity} workers are free",
                metadata={"free": str(self.dispatcher.free), "total": str(self.dispatcher.capacity)},
                retry_after_s=10.0,
            )
        record = await asyncio.to_thread(self.store.change, record.job_id, scale=request.workers, at=time.time())
        self.dispatcher.wake()
        return pb.ScaleJobResponse(job=self._message(record))

    async def delete(self, caller: Caller, request: pb.DeleteJobRequest) -> pb.DeleteJobResponse:
        """Removes a job that has ended."""
        record = await self.of(caller, request.job_id)
        if record.state not in ENDED:
            raise ServiceError(Reason.ILLEGAL_STATE, f"cannot delete a job that is {record.state}: cancel it first")
        # The record first: a folder without one is swept by the next service, a job without files would be a lie.
        await asyncio.to_thread(self.store.delete, record.job_id)
        await asyncio.to_thread(remove_folder, self.dispatcher.job_folder(record.job_id))
        return pb.DeleteJobResponse()

    async def of(self, caller: Caller, job_id: str) -> JobRecord:
        """The caller's job of that name.

        Raises:
            ServiceError: there is none; the same for somebody else's.
        """
        record = await asyncio.to_thread(self.store.get, job_id)
        if record is None or not caller.may_use(record.owner):
            raise ServiceError(Reason.JOB_NOT_FOUND, f"{_shown(job_id)}: you have no such job")
        return record

    async def _ask(self, caller: Caller, job_id: str, asked: Asked) -> pb.Job:
        """Does what a user asks of a job, wherever it has got to in the meantime."""
        while True:
            record = await self.of(caller, job_id)
            new = asked(record.state, record.intent)
            if new is None:
                return self._message(record)
            state, intent = new
            change = partial(self.store.change, job_id, expect={record.state}, intent=intent, at=time.time())
            try:
                record = await asyncio.to_thread(change, state=state, reason="")
            except StaleError:
                continue
            await self.feed.announce(job_id, record.last_sequence)
            if intent is not Intent.RUN:
                await self.dispatcher.stop(job_id)
            self.dispatcher.wake()
            return self._message(record)

    def _workers(self, spec: JobSpec, asked: int) -> int:
        """How many workers a job holds.

        Raises:
            ServiceError: more than there are, or than one owner may have.
        """
        workers = min(asked, spec.batch.shards)
        for most, whose in (
            (self.dispatcher.capacity, "this service has"),
            (self.limits.workers, "one owner may have"),
        ):
            if most is not None and workers > most:
                raise ServiceError(
                    Reason.TOO_MANY_WORKERS,
                    f"workers.count = {asked}: {whose} {most}",
                    metadata={"asked": str(workers), "total": str(most)},
                )
        return workers

    def _message(self, record: JobRecord) -> pb.Job:
        position = self.dispatcher.queue_position(record.job_id) if record.state is JobState.QUEUED else None
        return job_message(record, position)


def _check(request: pb.CreateJobRequest) -> None:
    problems = []
    if request.priority not in _PRIORITIES:
        problems.append(FieldProblem("priority", str(request.priority), "must be from -100 to 100"))
    if not _REQUEST_ID.fullmatch(request.request_id):
        problems.append(FieldProblem("request_id", _shown(request.request_id), "must be a UUID, or empty"))
    if problems:
        raise ServiceError(Reason.INVALID_ARGUMENT, "; ".join(map(str, problems)), fields=tuple(problems))


def _states(numbers: Sequence[int]) -> frozenset[JobState]:
    known = {
        number: JobState(state.value) for state in JobState for number in [pb.JobState.Value(f"JOB_STATE_{state}")]
    }
    if wrong := [number for number in numbers if number not in known]:
        problem = FieldProblem(
            "states", str(wrong[0]), f"must be {', '.join(f'JOB_STATE_{state}' for state in JobState)}"
        )
        raise ServiceError(Reason.INVALID_ARGUMENT, str(problem), fields=(problem,))
    return frozenset(known[number] for number in numbers)


def _new_id(spec: JobSpec) -> str:
    """A name that nobody can guess and that says a little."""
    words = re.sub(r"[^a-z0-9]+", "-", spec.name.lower()).strip("-")[:24].rstrip("-")
    return f"{words or 'job'}-{secrets.token_hex(6)}"


def _shown(text: str) -> str:
    """What a caller sent, no longer than a line."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
