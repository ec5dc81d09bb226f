"""Errors of the library as refusals of a call: which reason each has, and what of it a caller may read."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from shardsgd.coordinator.service import datasets, jobs, states
from shardsgd.coordinator.service.problems import CATALOG, Reason, ServiceError
from shardsgd.errors import (
    DataError,
    FieldProblem,
    InputError,
    InterruptedJobError,
    JobError,
    RemoteError,
    ResumeError,
    ShardsgdError,
    SpecError,
    WaitTimeoutError,
)

# The nearest ancestor counts. What has none here but ShardsgdError is nothing that a call is meant to end with.
REASONS: Mapping[type[ShardsgdError], Reason] = {
    InputError: Reason.INVALID_ARGUMENT,
    SpecError: Reason.INVALID_SPEC,
    DataError: Reason.DATA_UNREADABLE,
    ResumeError: Reason.CANNOT_RESUME,
    JobError: Reason.JOB_FAILED,
    InterruptedJobError: Reason.ILLEGAL_STATE,
    # Of clients: nothing that a service does ends with one.
    RemoteError: Reason.INTERNAL,
    WaitTimeoutError: Reason.INTERNAL,
    states.IllegalTransitionError: Reason.ILLEGAL_STATE,
    jobs.StaleError: Reason.ILLEGAL_STATE,
    jobs.RequestReusedError: Reason.REQUEST_ID_REUSED,
    jobs.QuotaError: Reason.QUOTA_EXCEEDED,
    jobs.JobGoneError: Reason.JOB_NOT_FOUND,
    jobs.DatasetGoneError: Reason.DATASET_NOT_FOUND,
    jobs.DiskFullError: Reason.DISK_FULL,
    # The service's own trouble, with its own files: not the caller's fault, nor the caller's to know.
    jobs.StoreError: Reason.INTERNAL,
    datasets.UploadTooLargeError: Reason.UPLOAD_TOO_LARGE,
    datasets.ChecksumError: Reason.CHECKSUM_MISMATCH,
}

_FULL = (errno.ENOSPC, errno.EDQUOT)


def refusal(error: Exception, private: Sequence[Path] = ()) -> ServiceError | None:
    """What a caller is told of an error.

    Args:
        error: that ended a call.
        private: folders of the service, whose names a caller is not told.

    Returns:
        None: it was not meant to happen, and the caller is told no more than that.
    """
    if isinstance(error, ServiceError):
        return None if error.reason is Reason.INTERNAL else error
    if is_disk_full(error):
        return ServiceError(Reason.DISK_FULL, CATALOG[Reason.DISK_FULL].meaning)
    reason = next((REASONS[kind] for kind in type(error).__mro__ if kind in REASONS), Reason.INTERNAL)
    if reason is Reason.INTERNAL:
        return None
    text = without_folders(str(error), private)
    metadata = {}
    if isinstance(error, jobs.QuotaError):
        metadata = {"subject": error.what, "used": str(error.used), "limit": str(error.limit)}
    fields = error.problems if isinstance(error, SpecError) else ()
    if isinstance(error, DataError):
        fields = (FieldProblem("data.source", "", text),)
    return ServiceError(reason, text, fields=fields, metadata=metadata)


def is_disk_full(error: Exception) -> bool:
    """Whether an error says that a disk is full, or a quota of the service's user."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, jobs.DiskFullError) or (isinstance(error, OSError) and error.errno in _FULL)


def without_folders(text: str, folders: Sequence[Path]) -> str:
    """The text with `…` in place of the folders' paths; what lies in them keeps its name."""
    for folder in sorted((str(folder) for folder in folders), key=len, reverse=True):
        if folder != "/":
            text = text.replace(folder, "…")
    return text
