"""A job of a service, to be followed, steered and fetched from anywhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardsgd.coordinator.records import Summary
from shardsgd.coordinator.service.states import JobState
from shardsgd.errors import (
    JobCancelledError,
    JobFailedError,
    RefusedError,
    RemoteError,
    ServiceUnavailableError,
    WaitTimeoutError,
)
from shardsgd.protos import training_pb2 as pb
from shardsgd.remote_calls import Calls
from shardsgd.remote_downloads import download_arrays, download_file
from shardsgd.remote_events import JobEvent
from shardsgd.remote_info import Download, JobInfo, RemoteResult
from shardsgd.remote_messages import job_info
from shardsgd.remote_patience import Patience
from shardsgd.remote_watch import follow

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RemoteJob:
    """A job of a service. Made by `Client.submit`, `Client.job` and `Client.jobs`; nothing is asked until a method is called.

    Every method raises RefusedError where the service refuses (there is no such job, it has ended, …), and
    ServiceUnavailableError where it cannot be reached.

    Args:
        calls: to the service.
        job_id: made by the service.
        patience_s: how long `watch`, `wait` and downloads bear with a service that is out of reach, in seconds.

    Attributes:
        id: made by the service.
    """

    def __init__(self, calls: Calls, job_id: str, patience_s: float) -> None:
        self.id = job_id
        self._calls = calls
        self._patience_s = patience_s

    def __repr__(self) -> str:
        return f"<RemoteJob {self.id} at {self._calls.address}>"

    def get(self) -> JobInfo:
        """The job as it stands."""
        return job_info(self._calls.ask(pb.GetJobRequest(job_id=self.id), pb.GetJobResponse).job)

    def watch(
        self,
        after_sequence: int = 0,
        *,
        on_lost: Callable[[ServiceUnavailableError], None] | None = None,
    ) -> Generator[JobEvent, None, None]:
        """What happens to the job, each event once and in order, until it has ended.

        Where the connection breaks or the service restarts, it goes on after the last event; it gives up once the service has
        been out of reach for the client's `patience_s`. Closing the generator ends the request.

        Args:
            after_sequence: number of the last event that is not wanted; 0: from the first one.
            on_lost: told when the service gets out of reach, once each time.

        Example:
            for event in job.watch():
                match event:
                    case shardsgd.StepEvent(record=step):
                        print(step.step, step.loss)
                    case shardsgd.StateEvent(state=state):
                        print(state)
        """
        return follow(self._calls, self.id, after_sequence, Patience(self._patience_s), on_lost=on_lost)

    def wait(self, timeout_s: float | None = None) -> Summary:
        """Waits until the job has ended. A paused one has not.

        Args:
            timeout_s: for so long at most, in seconds; None: for as long as it takes.

        Returns:
            How it ended, where it succeeded.

        Raises:
            JobFailedError: it failed; `summary` says how far it came, where it came anywhere.
            JobCancelledError: it was cancelled, likewise.
            WaitTimeoutError: it goes on.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        info = self.get()
        while not info.ended:
            if until is not None and time.monotonic() >= until:
                raise WaitTimeoutError(
                    f"job {self.id} has not ended after {timeout_s:g} s; it is {info.state} and goes on"
                )
            for _ in follow(self._calls, self.id, info.last_sequence, Patience(self._patience_s), until=until):
                pass
            info = self.get()
        return summary_of_ended(info)

    def result(self, timeout_s: float | None = None) -> RemoteResult:
        """Waits like `wait`, raises like `wait`, and fetches what the job has learned.

        Raises:
            TransferError: what arrived is not what was sent.
        """
        summary = self.wait(timeout_s)
        return RemoteResult(self.id, summary, self.parameters())

    def parameters(self) -> dict[str, NDArray[Any]]:
        """The parameters of a job that has ended or is paused, by name, checked against their checksum.

        Raises:
            TransferError: what arrived is not what was sent.
        """
        return download_arrays(self._calls, self.id, Patience(self._patience_s))

    def download(self, path: str | os.PathLike[str]) -> Download:
        """Fetches the parameters of a job that has ended or is paused into a safetensors file.

        The file is there once it is whole and checked; one of that name is replaced.

        Raises:
            InputError: the file cannot be written.
            TransferError: what arrived is not what was sent.
        """
        return download_file(self._calls, self.id, Path(path), Patience(self._patience_s))

    def pause(self) -> JobInfo:
        """Has the job stop with a checkpoint and wait; it is PAUSED once its state says so."""
        return job_info(self._calls.ask(pb.PauseJobRequest(job_id=self.id), pb.PauseJobResponse).job)

    def resume(self) -> JobInfo:
        """Has a paused job go on; it ends in the same bits as if it had not been paused."""
        return job_info(self._calls.ask(pb.ResumeJobRequest(job_id=self.id), pb.ResumeJobResponse).job)

    def cancel(self) -> JobInfo:
        """Has the job end; it is CANCELLED once its state says so. What it had learned by then can still be downloaded."""
        return job_info(self._calls.ask(pb.CancelJobRequest(job_id=self.id), pb.CancelJobResponse).job)

    def scale(self, workers: int) -> JobInfo:
        """Has the job go on with another number of workers, from `workers.min` to `workers.max` of its spec.

        No bit of its result changes.
        """
        request = pb.ScaleJobRequest(job_id=self.id, workers=workers)
        return job_info(self._calls.ask(request, pb.ScaleJobResponse).job)

    def delete(self) -> None:
        """Removes the job, which has ended, with its events and files."""
        patience, tried = Patience(self._patience_s), False
        while True:
            try:
                self._calls.ask(pb.DeleteJobRequest(job_id=self.id), pb.DeleteJobResponse)
            except RefusedError as error:
                # An earlier try may have been done although its answer was lost.
                if not (tried and error.code == "NOT_FOUND"):
                    raise
            except ServiceUnavailableError as error:
                if error.code == "DEADLINE_EXCEEDED":
                    raise
                tried = True
                patience.after(error)
                continue
            return


def summary_of_ended(info: JobInfo) -> Summary:
    """How a job ended that succeeded.

    Raises:
        JobFailedError: it failed.
        JobCancelledError: it was cancelled.
        RemoteError: the service does not say how it ended.
    """
    if info.state is JobState.SUCCEEDED:
        if info.summary is None:
            raise RemoteError(f"job {info.job_id} succeeded, but the service does not say how")
        return info.summary
    failed = info.state is JobState.FAILED
    reason = f": {info.reason}" if info.reason else ""
    error = (JobFailedError if failed else JobCancelledError)(
        f"job {info.job_id} {'failed' if failed else 'was cancelled'}{reason}"
    )
    error.summary = info.summary
    raise error
