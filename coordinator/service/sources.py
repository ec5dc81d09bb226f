"""Where a submitted job's data is: a bundled or synthetic set, a file under a data root, or an uploaded dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from shardsgd.coordinator.data.bundled import BUNDLED
from shardsgd.coordinator.data.synthetic import PREFIX as SYNTHETIC
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.roots import allowed
from shardsgd.errors import FieldProblem
from shardsgd.spec import JobSpec, looks_like_path

UPLOADED = "sha256:"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether a text is a SHA-256 in lower-case hexadecimal."""
    return _SHA256.fullmatch(text) is not None


def uploaded(source: str) -> str | None:
    """The SHA-256 of the uploaded dataset that `data.source` means; None where it means something else.

    Raises:
        ServiceError: it begins like one and is none.
    """
    if not source.startswith(UPLOADED):
        return None
    sha256 = source.removeprefix(UPLOADED)
    if not is_sha256(sha256):
        raise wrong_source(source, f"must be {UPLOADED} and 64 hexadecimal digits, as UploadDataset answers")
    return sha256


def confined(spec: JobSpec, roots: Sequence[Path]) -> JobSpec:
    """The spec with the real path of its data, if that is a path at all.

    Raises:
        ServiceError: there is no such set, or the path is not under a root.
    """
    source = spec.data.source
    if source in BUNDLED or source.startswith((SYNTHETIC, UPLOADED)):
        return spec
    if not looks_like_path(source):
        raise wrong_source(source, f"no such set; accepted: {', '.join(BUNDLED)}, {SYNTHETIC}…, {UPLOADED}… or a path")
    return with_source(spec, str(allowed(source, roots)))


def with_source(spec: JobSpec, source: str) -> JobSpec:
    """The spec with other data."""
    return spec.model_copy(update={"data": spec.data.model_copy(update={"source": source})})


def wrong_source(source: str, accepted: str) -> ServiceError:
    """`data.source` is wrong."""
    problem = FieldProblem("data.source", source, accepted)
    return ServiceError(Reason.INVALID_SPEC, f"{problem}", fields=(problem,))
