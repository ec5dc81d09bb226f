"""TrainingService over gRPC: every call goes to its handler, with the caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

from shardsgd.coordinator.service.current_call import audit, current_caller
from shardsgd.coordinator.service.data_handlers import DataHandlers
from shardsgd.protos import training_pb2 as pb

Context = Any


def training_servicer(data: DataHandlers) -> SimpleNamespace:
    """What `add_TrainingServiceServicer_to_server` takes: a function for each call of training.proto.

    Args:
        data: handlers of datasets and parameters, and by way of them of jobs.
    """
    jobs = data.jobs
    return SimpleNamespace(
        CreateJob=_change(jobs.create),
        PauseJob=_change(jobs.pause),
        ResumeJob=_change(jobs.resume),
        CancelJob=_change(jobs.cancel),
        ScaleJob=_change(jobs.scale),
        DeleteJob=_change(jobs.delete),
        UploadDataset=_change(data.upload),
        GetJob=_read(jobs.get),
        ListJobs=_read(jobs.page),
        GetServerInfo=_read(data.server_info),
        WatchJob=_stream(jobs.watch),
        DownloadParameters=_stream(data.download),
    )


def _read(handler: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        del context
        return await handler(current_caller(), request)

    return call


def _change(handler: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        del context
        response = await handler(current_caller(), request)
        named = response if hasattr(response, "source") else getattr(response, "job", request)
        audit(handler.__name__, **{name: getattr(named, name) for name in ("job_id", "source") if hasattr(named, name)})
        return response

    return call


def _stream(handler: Callable[[Any, Any], AsyncGenerator[Any, None]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        del context
        async with aclosing(handler(current_caller(), request)) as responses:
            async for response in responses:
                yield response

    return call


SERVICE = pb.DESCRIPTOR.services_by_name["TrainingService"].full_name
