"""Training on a service from Python: `shardsgd.Client`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from shardsgd.coordinator.service.states import JobState
from shardsgd.errors import InputError, ServiceUnavailableError
from shardsgd.protos import training_pb2 as pb
from shardsgd.remote_calls import Calls
from shardsgd.remote_endpoint import DEFAULT_ADDRESS, Endpoint
from shardsgd.remote_info import JobInfo, ServerInfo
from shardsgd.remote_job import RemoteJob
from shardsgd.remote_messages import job_info, server_info
from shardsgd.remote_patience import Patience
from shardsgd.spec import JobSpec, looks_like_path
from shardsgd.spec_messages import spec_message
from shardsgd.uploads import packed, upload

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_PAGE = 100


class Client:
    """Jobs of a service. For any number of threads; connects with its first request; closes as a context manager.

    Connections to this machine are plain text unless a TLS file is given; all others speak TLS unless `insecure` is set.
    Requests that fail because the service is unavailable are tried again, and no others.

    Args:
        address: HOST:PORT of the service.
        token: sent with every request.
        tls_ca: PEM file of the authorities that may have signed the service's certificate; None: the system's.
        tls_cert: PEM file of this client's own certificate, for services that ask for one.
        tls_key: PEM file of its key.
        insecure: speak, and send the token, in plain text to whatever host it is.
        timeout_s: deadline of a request, in seconds. Uploads, downloads and watches have others.
        patience_s: how long submitting, uploads, watches and downloads bear with a service that is out of reach, from the
            last sign of it, in seconds.

    Raises:
        InputError: the address, the token or a TLS file cannot be used.

    Example:
        with shardsgd.Client("127.0.0.1:50051") as client:
            job = client.submit(shardsgd.JobSpec(data={"source": "digits"}))
            print(job.result().parameters["layer0.weight"].shape)
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        timeout_s: float = 20.0,
        patience_s: float = 60.0,
    ) -> None:
        ca, cert, key = (None if path is None else Path(path) for path in (tls_ca, tls_cert, tls_key))
        endpoint = Endpoint(address, token, ca, cert, key, insecure)
        if not (timeout_s > 0 and patience_s >= 0):
            raise InputError(f"timeout_s = {timeout_s:g}, patience_s = {patience_s:g}: must be more than 0, at least 0")
        self._calls = Calls(endpoint, timeout_s)
        self._patience_s = patience_s

    def __repr__(self) -> str:
        return f"<Client of {self._calls.address}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and what is under way in other threads. Jobs go on."""
        self._calls.close()

    def submit(
        self,
        spec: JobSpec,
        *,
        data: Mapping[str, ArrayLike] | str | os.PathLike[str] | None = None,
        upload: bool = False,
        request_id: str | None = None,
        priority: int = 0,
    ) -> RemoteJob:
        """Submits a job. Once this returns, it survives any death of the service.

        Args:
            spec: what to train.
            data: arrays by name, or the path of an .npz, .npy, .csv or .parquet file, to be uploaded and used in place of
                `data.source`; `data.label` and `data.features` name its arrays or columns.
            upload: likewise for the file that `data.source` itself names. Otherwise a path means a file of the service's
                machine, under one of its data roots.
            request_id: a UUID: another request with the same one, and the same content, returns the same job. None: a new one,
                so that what this method repeats by itself, where the connection breaks, makes one job.
            priority: higher ones are started first, −100 … 100.

        Raises:
            SpecError: the service refuses the spec; all wrong fields are listed.
            RefusedError: it refuses the job for another reason, such as a quota.
            InputError: the data cannot be read or sent.
            ServiceUnavailableError: it is out of reach. The job may have been accepted nevertheless: the same `request_id`
                finds it, or makes it.
        """
        if data is None and upload:
            if not looks_like_path(spec.data.source):
                raise InputError(f"data.source = {spec.data.source}: not a path, so there is nothing to upload")
            data = spec.data.source
        message = spec_message(spec)
        if data is not None:
            message.data.source = self.upload(data)
        request = pb.CreateJobRequest(
            spec=message, request_id=str(uuid.uuid4()) if request_id is None else request_id, priority=priority
        )
        patience = Patience(self._patience_s)
        while True:
            try:
                answer = self._calls.ask(request, pb.CreateJobResponse)
            except ServiceUnavailableError as error:
                if error.code == "DEADLINE_EXCEEDED":
                    raise
                patience.after(error)
            else:
                return self.job(answer.job.job_id)

    def upload(
        self,
        data: Mapping[str, ArrayLike] | str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> str:
        """Uploads a dataset. The service keeps it once, by content, and removes it some time after the last job that uses it.

        Args:
            data: arrays by name, or the path of an .npz, .npy, .csv or .parquet file.
            progress: told how many bytes have been sent, and of how many; from another thread.

        Returns:
            What `data.source` is to be.

        Raises:
            InputError: the data cannot be read or sent.
            RemoteError: the service refuses it, failed or is out of reach.
        """
        with packed(data) as parcel:
            return upload(self._calls, parcel, Patience(self._patience_s), progress)

    def job(self, job_id: str) -> RemoteJob:
        """A job by its id; whether there is one is told by its methods."""
        return RemoteJob(self._calls, job_id, self._patience_s)

    def jobs(self, states: Collection[JobState | str] = ()) -> Iterator[JobInfo]:
        """The caller's jobs as they stand, the newest first; everybody's for an administrator.

        Args:
            states: only jobs in these; none: in any.

        Raises:
            InputError: there is no such state.
            RemoteError: the service refuses, failed or is out of reach.
        """
        request = pb.ListJobsRequest(page_size=_PAGE, states=[_state_name(state) for state in states])
        return self._pages(request)

    def server_info(self) -> ServerInfo:
        """What the service is, what it has and what it allows.

        Raises:
            RemoteError: it refuses, failed or is out of reach.
        """
        return server_info(self._calls.ask(pb.GetServerInfoRequest(), pb.GetServerInfoResponse))

    def _pages(self, request: pb.ListJobsRequest) -> Iterator[JobInfo]:
        while True:
            page = self._calls.ask(request, pb.ListJobsResponse)
            yield from map(job_info, page.jobs)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _state_name(state: JobState | str) -> str:
    try:
        return f"JOB_STATE_{JobState(state)}"
    except ValueError:
        raise InputError(f"{state}: not a state of jobs; expected one of {', '.join(JobState)}") from None
