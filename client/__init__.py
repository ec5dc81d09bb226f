"""shardsgd: data-parallel minibatch SGD with the same bits for any number of workers.

Importing this package loads neither ray, jax nor grpc; the client of the service comes with the first use of its names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shardsgd.advise import advise
from shardsgd.api import TrainResult, train
from shardsgd.coordinator.control import Control
from shardsgd.errors import (
    DataError,
    InputError,
    InterruptedJobError,
    JobCancelledError,
    JobError,
    JobFailedError,
    RefusedError,
    RemoteError,
    RemoteSpecError,
    ResumeError,
    ServiceUnavailableError,
    ShardsgdError,
    SpecError,
    TakenOverError,
    TransferError,
    WaitTimeoutError,
)
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec
from shardsgd.variance_api import VarianceResult, variance

if TYPE_CHECKING:
    from shardsgd.coordinator.service.states import Intent, JobState
    from shardsgd.remote import Client
    from shardsgd.remote_events import (
        IncidentEvent,
        JobEvent,
        LogEvent,
        StateEvent,
        StepEvent,
        ThinnedEvent,
        ValidationEvent,
    )
    from shardsgd.remote_info import Download, JobInfo, JobProgress, OwnerLimits, RemoteResult, ServerInfo
    from shardsgd.remote_job import RemoteJob

# Where the names of the client are, which are imported with their first use.
_LATER = {
    "Client": "remote",
    "Download": "remote_info",
    "IncidentEvent": "remote_events",
    "Intent": "coordinator.service.states",
    "JobEvent": "remote_events",
    "JobInfo": "remote_info",
    "JobProgress": "remote_info",
    "JobState": "coordinator.service.states",
    "LogEvent": "remote_events",
    "OwnerLimits": "remote_info",
    "RemoteJob": "remote_job",
    "RemoteResult": "remote_info",
    "ServerInfo": "remote_info",
    "StateEvent": "remote_events",
    "StepEvent": "remote_events",
    "ThinnedEvent": "remote_events",
    "ValidationEvent": "remote_events",
}

__all__ = [
    "Client",
    "Control",
    "DataError",
    "Download",
    "IncidentEvent",
    "InputError",
    "Intent",
    "InterruptedJobError",
    "JobCancelledError",
    "JobError",
    "JobEvent",
    "JobFailedError",
    "JobInfo",
    "JobProgress",
    "JobSpec",
    "JobState",
    "LogEvent",
    "OwnerLimits",
    "RefusedError",
    "RemoteError",
    "RemoteJob",
    "RemoteResult",
    "RemoteSpecError",
    "ResumeError",
    "ServerInfo",
    "ServiceUnavailableError",
    "ShardsgdError",
    "SpecError",
    "StateEvent",
    "StepEvent",
    "TakenOverError",
    "ThinnedEvent",
    "TrainResult",
    "TransferError",
    "ValidationEvent",
    "VarianceResult",
    "WaitTimeoutError",
    "advise",
    "read_spec",
    "train",
    "variance",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
