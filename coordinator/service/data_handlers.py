"""What the service does about datasets and parameters, and what it says of itself: without gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from google.protobuf.duration_pb2 import Duration

from shardsgd.coordinator.service.access import Caller
from shardsgd.coordinator.service.datasets import DatasetFiles
from shardsgd.coordinator.service.files import sha256_of
from shardsgd.coordinator.service.job_handlers import JobHandlers
from shardsgd.coordinator.service.jobs import JobRecord
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.sources import UPLOADED, is_sha256, uploaded, with_source
from shardsgd.coordinator.service.states import HOLDS_WORKERS, JobState
from shardsgd.coordinator.service.store import JobStore
from shardsgd.errors import FieldProblem
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec_files import parse_spec, spec_toml

CHUNK_BYTES = 2**20
_SUFFIXES = {
    pb.DATASET_FORMAT_NPZ: ".npz",
    pb.DATASET_FORMAT_NPY: ".npy",
    pb.DATASET_FORMAT_CSV: ".csv",
    pb.DATASET_FORMAT_PARQUET: ".parquet",
}


@dataclass(frozen=True)
class DataHandlers:
    """Datasets and parameters.

    Attributes:
        jobs: whose parameters they are.
        datasets: files of uploaded datasets.
        started_at: of this service, by a monotonic clock, in seconds.
        clock: that clock.
    """

    jobs: JobHandlers
    datasets: DatasetFiles
    started_at: float
    clock: Callable[[], float] = time.monotonic

    async def upload(self, caller: Caller, parts: AsyncIterator[pb.UploadDatasetRequest]) -> pb.UploadDatasetResponse:
        """Takes a dataset in; it is on disk when this returns."""
        header = await _header(parts)
        source = f"{UPLOADED}{header.sha256}"
        store, suffix = self.jobs.store, _SUFFIXES[header.format]
        # Looked up by owner: that somebody else has it would tell what others work on.
        if await asyncio.to_thread(store.touch_dataset, header.sha256, caller.owner, time.time()) == suffix:
            return pb.UploadDatasetResponse(source=source, existed=True)
        most = self.jobs.limits.dataset_bytes
        used = await asyncio.to_thread(store.dataset_bytes, caller.owner) if most is not None else 0
        if most is not None and used + header.size_bytes > most:
            raise ServiceError(
                Reason.QUOTA_EXCEEDED,
                f"size_bytes = {header.size_bytes}: you have {used} of at most {most} bytes of datasets",
                metadata={"used": str(used), "limit": str(most)},
            )
        with self.datasets.begin(header.sha256, header.size_bytes, suffix) as upload:
            async for part in parts:
                if part.WhichOneof("part") != "chunk" or len(part.chunk) > CHUNK_BYTES:
                    raise _wrong(
                        "chunk", "", f"after the header only chunks may come, each of at most {CHUNK_BYTES} bytes"
                    )
                await asyncio.to_thread(upload.write, part.chunk)
            await asyncio.to_thread(upload.finish)
            # Before the block is left: no sweep comes between.
            await asyncio.to_thread(
                store.link_dataset,
                header.sha256,
                caller.owner,
                header.size_bytes,
                suffix,
                time.time(),
                most_bytes=self.jobs.limits.dataset_bytes,
            )
        return pb.UploadDatasetResponse(source=source, existed=False)

    async def download(
        self, caller: Caller, request: pb.DownloadParametersRequest
    ) -> AsyncGenerator[pb.DownloadParametersResponse, None]:
        """A job's parameters."""
        record = await self.jobs.of(caller, request.job_id)
        if record.state in HOLDS_WORKERS or record.state is JobState.QUEUED:
            raise ServiceError(
                Reason.NO_PARAMETERS, f"{record.job_id} is {record.state}: it has no parameters to fetch yet"
            )
        folder = self.jobs.dispatcher.job_folder(record.job_id)
        try:
            file = os.open(folder / "parameters.safetensors", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ServiceError(
                Reason.NO_PARAMETERS, f"{record.job_id} is {record.state} and has no parameters"
            ) from None
        try:
            size = os.fstat(file).st_size
            if not 0 <= request.offset_bytes <= size:
                raise _wrong("offset_bytes", str(request.offset_bytes), f"must be from 0 to {size}")
            summary = record.summary or json.loads((folder / "summary.json").read_bytes())
            header = pb.ParametersHeader(
                size_bytes=size,
                sha256=await asyncio.to_thread(sha256_of, file),
                parameters_sha256=summary["parameters_sha256"],
            )
            yield pb.DownloadParametersResponse(header=header)
            offset = request.offset_bytes
            while chunk := await asyncio.to_thread(os.pread, file, CHUNK_BYTES, offset):
                offset += len(chunk)
                yield pb.DownloadParametersResponse(chunk=chunk)
        finally:
            os.close(file)

    async def server_info(self, caller: Caller, request: pb.GetServerInfoRequest) -> pb.GetServerInfoResponse:
        """What this service is."""
        del request
        dispatcher, limits = self.jobs.dispatcher, self.jobs.limits
        uptime = Duration()
        uptime.FromNanoseconds(round(1e9 * (self.clock() - self.started_at)))
        return pb.GetServerInfoResponse(
            version=version("shardsgd"),
            jaxlib_version=version("jaxlib"),
            workers_total=dispatcher.capacity,
            workers_free=dispatcher.free,
            jobs_queued=dispatcher.queued,
            jobs_running=dispatcher.running,
            owner=caller.owner,
            limits=pb.Limits(
                open_jobs=limits.open_jobs or 0,
                workers=limits.workers or 0,
                dataset_bytes=limits.dataset_bytes or 0,
                upload_bytes=limits.upload_bytes or 0,
            ),
            uptime=uptime,
        )


def run_spec(record: JobRecord, store: JobStore, datasets: DatasetFiles) -> str:
    """The spec that a job is run with: an uploaded dataset is a file by then.

    Raises:
        ServiceError: the dataset is not there any more.
    """
    spec = parse_spec(record.spec_toml)
    sha256 = uploaded(spec.data.source)
    if sha256 is None:
        return record.spec_toml
    suffix = store.owns_dataset(sha256, record.owner)
    if suffix is None:
        raise ServiceError(Reason.DATA_UNREADABLE, f"{spec.data.source}: this dataset is not there any more")
    return spec_toml(with_source(spec, str(datasets.path(sha256, suffix))))


async def _header(parts: AsyncIterator[pb.UploadDatasetRequest]) -> pb.DatasetHeader:
    first: Any = await anext(parts, None)
    if first is None or first.WhichOneof("part") != "header":
        raise _wrong("header", "", "must come before the chunks")
    header: pb.DatasetHeader = first.header
    problems = []
    if not is_sha256(header.sha256):
        problems.append(
            FieldProblem("header.sha256", repr(header.sha256[:80]), "must be 64 hexadecimal digits, lower case")
        )
    if header.size_bytes < 1:
        problems.append(FieldProblem("header.size_bytes", str(header.size_bytes), "must be at least 1"))
    if header.format not in _SUFFIXES:
        names = ", ".join(pb.DatasetFormat.Name(number) for number in _SUFFIXES)
        problems.append(FieldProblem("header.format", str(header.format), f"must be {names}"))
    if problems:
        raise ServiceError(Reason.INVALID_ARGUMENT, "; ".join(map(str, problems)), fields=tuple(problems))
    return header


def _wrong(field: str, value: str, accepted: str) -> ServiceError:
    problem = FieldProblem(field, value, accepted)
    return ServiceError(Reason.INVALID_ARGUMENT, str(problem), fields=(problem,))
