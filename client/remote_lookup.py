"""Jobs by what a user types: an id, or the beginning of one."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from shardsgd.errors import InputError, RefusedError
from shardsgd.remote_options import Connection

if TYPE_CHECKING:
    from shardsgd.remote import Client
    from shardsgd.remote_info import JobInfo

_SHOWN = 5
# A shell waits for its completions, so it does not wait for long.
_COMPLETION_S = 1.0
_COMPLETIONS = 200


def find_job(client: Client, text: str) -> JobInfo:
    """The job of an id, or the only one whose id begins so.

    Raises:
        InputError: there is none, or there are more.
        RemoteError: the service refuses, failed or is out of reach.
    """
    if not text:
        raise InputError("JOB is empty; expected the id of a job, or the beginning of one")
    try:
        return client.job(text).get()
    except RefusedError as error:
        if error.code != "NOT_FOUND":
            raise
        found = list(islice((info for info in client.jobs() if info.job_id.startswith(text)), _SHOWN + 1))
        if not found:
            raise
    if len(found) > 1:
        listed = ", ".join(info.job_id for info in found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
        raise InputError(f"{text}: more than one job begins so: {listed}")
    return found[0]


def complete_job(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids that begin so, with their states, for a shell. None where the service cannot be asked."""
    try:
        given = {name: value for name, value in context.params.items() if name in Connection.__dataclass_fields__}
        connection = Connection(**{name: value for name, value in given.items() if value is not None})
        with connection.client(timeout_s=_COMPLETION_S, patience_s=0) as client:
            begin = (info for info in client.jobs() if info.job_id.startswith(incomplete))
            return [(info.job_id, str(info.state)) for info in islice(begin, _COMPLETIONS)]
    except Exception:  # noqa: BLE001  # a shell in the middle of a line is no place for a message
        return []


JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Its id, or a beginning that no other has.", autocompletion=complete_job),
]
