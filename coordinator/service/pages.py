"""Pages of a list: sizes, and tokens that are good for one query only. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct

from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.errors import FieldProblem

_DEFAULT, _MOST = 50, 500
_CURSOR = struct.Struct(">q8s")


def page_size(asked: int) -> int:
    """How many items a page has.

    Raises:
        ServiceError: fewer than none.
    """
    if asked < 0:
        raise _wrong("page_size", str(asked), f"must be 0 (for {_DEFAULT}) to {_MOST}")
    return min(asked or _DEFAULT, _MOST)


def page_token(cursor: int, query: str) -> str:
    """The token of the page after a cursor."""
    return base64.urlsafe_b64encode(_CURSOR.pack(cursor, _digest(query))).decode().rstrip("=")


def cursor_of(token: str, query: str) -> int | None:
    """The cursor that a token stands for; None for the first page.

    Raises:
        ServiceError: it is of another query, or no token at all.
    """
    if not token:
        return None
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        cursor, digest = _CURSOR.unpack(packed)
    except (binascii.Error, ValueError, struct.error):
        cursor, digest = 0, b""
    if digest != _digest(query):
        raise _wrong("page_token", repr(token[:80]), "must be next_page_token of the page before, of the same request")
    return int(cursor)


def _digest(query: str) -> bytes:
    return hashlib.sha256(query.encode()).digest()[:8]


def _wrong(field: str, value: str, accepted: str) -> ServiceError:
    problem = FieldProblem(field, value, accepted)
    return ServiceError(Reason.INVALID_ARGUMENT, str(problem), fields=(problem,))
