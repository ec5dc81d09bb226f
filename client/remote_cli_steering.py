"""Commands that steer jobs of a service, fetch what they have learned, and ask what the service is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardsgd.errors import InputError
from shardsgd.remote_cli import PANEL, JsonOption
from shardsgd.remote_lookup import JobArgument, find_job
from shardsgd.remote_options import Connection, service_command
from shardsgd.terminal import LeavableConsole, print_json

if TYPE_CHECKING:
    from shardsgd.remote_info import JobInfo
    from shardsgd.remote_job import RemoteJob


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for function in (pause, resume, scale, cancel, delete, download, server):
        app.command(function.__name__, rich_help_panel=PANEL)(service_command(function))


def pause(connection: Connection, job: JobArgument, json_only: JsonOption = False) -> None:
    """Have a job stop with a checkpoint, and wait."""
    _steer(connection, job, json_only, lambda found: found.pause())


def resume(connection: Connection, job: JobArgument, json_only: JsonOption = False) -> None:
    """Have a paused job go on; it ends in the same bits as if it had not been paused."""
    _steer(connection, job, json_only, lambda found: found.resume())


def cancel(connection: Connection, job: JobArgument, json_only: JsonOption = False) -> None:
    """Have a job end; what it has learned can still be downloaded."""
    _steer(connection, job, json_only, lambda found: found.cancel())


def scale(
    connection: Connection,
    job: JobArgument,
    workers: Annotated[int, typer.Argument(metavar="N", min=1, help="From workers.min to workers.max of its spec.")],
    json_only: JsonOption = False,
) -> None:
    """Have a job go on with another number of workers, which changes no bit of its result."""
    _steer(connection, job, json_only, lambda found: found.scale(workers))


def delete(
    connection: Connection,
    job: JobArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_only: JsonOption = False,
) -> None:
    """Remove a job that has ended, with all that is kept of it."""
    with connection.client() as client:
        found = find_job(client, job)
        if not yes and not _confirmed(found, asks=not json_only):
            return
        client.job(found.job_id).delete()
    if json_only:
        print_json({"deleted": found.job_id})
    else:
        typer.echo(f"{found.job_id}: deleted")


def download(
    connection: Connection,
    job: JobArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write (default: NAME.safetensors, a new one).")
    ] = None,
    json_only: JsonOption = False,
) -> None:
    """Fetch the parameters of a job that has ended or is paused, checked, as a safetensors file."""
    from shardsgd.remote_view import size  # noqa: PLC0415  # grpc

    with connection.client() as client:
        found = find_job(client, job)
        path = out or Path(f"{found.name}.safetensors")
        if out is None and path.exists():
            raise InputError(
                f"{path}: there is such a file already; --out FILE says where to write, or what to replace"
            )
        done = client.job(found.job_id).download(path)
    if json_only:
        print_json(
            {
                "job_id": found.job_id,
                "path": str(path),
                "size_bytes": done.size_bytes,
                "sha256": done.sha256,
                "parameters_sha256": done.parameters_sha256,
            }
        )
    else:
        typer.echo(f"{path}: {size(done.size_bytes)}, parameters sha256 {done.parameters_sha256[:16]}")


def server(connection: Connection, json_only: JsonOption = False) -> None:
    """Show what a service is, what it has and what it allows you."""
    from shardsgd.remote_json import server_object  # noqa: PLC0415  # grpc
    from shardsgd.remote_view import server_table  # noqa: PLC0415

    with connection.client() as client:
        info = client.server_info()
    if json_only:
        print_json(server_object(info))
    else:
        LeavableConsole().print(server_table(connection.server, info))


def _steer(connection: Connection, job: str, json_only: bool, act: Callable[[RemoteJob], JobInfo]) -> None:
    from shardsgd.remote_json import job_object  # noqa: PLC0415  # grpc
    from shardsgd.remote_view import state_text  # noqa: PLC0415

    with connection.client() as client:
        info = act(client.job(find_job(client, job).job_id))
    if json_only:
        print_json(job_object(info))
    else:
        typer.echo(f"{info.job_id}: {state_text(info).plain}")


def _confirmed(found: JobInfo, *, asks: bool) -> bool:
    if not (asks and sys.stdin.isatty()):
        raise InputError(f"{found.job_id}: deleting cannot be undone; --yes says that you mean it")
    try:
        return typer.confirm(f"delete {found.job_id} ({found.state}), its events and its files?")
    except typer.Abort:
        raise KeyboardInterrupt from None
