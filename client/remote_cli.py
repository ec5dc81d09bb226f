"""Commands that submit jobs to a service, follow them and tell of them."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardsgd.coordinator.records import Observer
from shardsgd.coordinator.service.states import JobState
from shardsgd.errors import InterruptedJobError
from shardsgd.remote_lookup import JobArgument, find_job
from shardsgd.remote_options import Connection, service_command
from shardsgd.spec import JobSpec, looks_like_path
from shardsgd.spec_files import read_spec
from shardsgd.terminal import LeavableConsole, display, print_json, say

if TYPE_CHECKING:
    from shardsgd.remote import Client
    from shardsgd.remote_job import RemoteJob

PANEL = "Jobs of a service"
_UPLOAD_LINE_SECONDS = 5.0

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for name, function in (("submit", submit), ("watch", watch), ("jobs", jobs), ("show", show)):
        app.command(name, rich_help_panel=PANEL)(service_command(function))


def submit(
    connection: Connection,
    job: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job spec.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field of the spec; repeatable."),
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Ray workers; overrides workers.count.")] = None,
    priority: Annotated[int, typer.Option(metavar="P", min=-100, max=100, help="Higher ones are started first.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end, like train.")] = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print only the job, or with --wait only the summary, as JSON.")
    ] = False,
    no_upload: Annotated[
        bool, typer.Option("--no-upload", help="data.source is a path under a data root of the service.")
    ] = False,
) -> None:
    """Submit a job, with its data where data.source is a file of this machine."""
    overrides = [*(overrides or []), *([f"workers.count={workers}"] if workers is not None else [])]
    spec = read_spec(job, [*_as_written(job), *overrides] if no_upload else overrides)
    with connection.client() as client:
        # A service that is not there is told at once, not after the patience of what follows.
        client.server_info()
        with display(quiet=json_only) as observer:
            submitted = _submit(client, spec, observer, priority=priority, no_upload=no_upload)
            if wait:
                from shardsgd.remote_follow import conclude, follow  # noqa: PLC0415  # grpc

                info = follow(submitted, observer, connection)
        if wait:
            conclude(info, connection, json_only=json_only)
        elif json_only:
            from shardsgd.remote_json import job_object  # noqa: PLC0415

            print_json(job_object(submitted.get()))
        else:
            typer.echo(f"submitted {submitted.id}; `{connection.command('watch', submitted.id)}` follows it")


def watch(
    connection: Connection,
    job: JobArgument,
    after: Annotated[int, typer.Option(metavar="N", min=0, help="From the event after this number.")] = 0,
    json_only: Annotated[bool, typer.Option("--json", help="Print the events, as one JSON object a line.")] = False,
) -> None:
    """Follow a job to its end, through every break of the connection."""
    from shardsgd.remote_follow import conclude, follow, print_events  # noqa: PLC0415  # grpc
    from shardsgd.remote_job import summary_of_ended  # noqa: PLC0415

    with connection.client() as client:
        found = client.job(find_job(client, job).job_id)
        if json_only:
            summary_of_ended(print_events(found, connection, after))
        else:
            with display(quiet=False) as observer:
                info = follow(found, observer, connection, after)
            conclude(info, connection, json_only=False)


def jobs(
    connection: Connection,
    states: Annotated[
        list[JobState] | None,
        typer.Option("--state", case_sensitive=False, help="Only jobs in this state; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The newest N only.")] = None,
    json_only: JsonOption = False,
) -> None:
    """List your jobs, the newest first."""
    from shardsgd.remote_json import job_object  # noqa: PLC0415  # grpc
    from shardsgd.remote_view import jobs_table, list_console  # noqa: PLC0415

    with connection.client() as client:
        found = list(islice(client.jobs(states or ()), limit))
    if json_only:
        print_json([job_object(info) for info in found])
    elif found:
        list_console().print(jobs_table(found))
    else:
        say("no jobs" + (f" in state {', '.join(states)}" if states else ""))


def show(connection: Connection, job: JobArgument, json_only: JsonOption = False) -> None:
    """Show where a job stands, and how it ended."""
    from shardsgd.remote_json import job_object  # noqa: PLC0415  # grpc
    from shardsgd.remote_view import ended_table, job_table  # noqa: PLC0415

    with connection.client() as client:
        info = find_job(client, job)
    if json_only:
        print_json(job_object(info))
        return
    shown = LeavableConsole()
    shown.print(job_table(info))
    if (ended := ended_table(info, connection.command("download", info.job_id))) is not None:
        shown.print()
        shown.print(ended)


def _submit(client: Client, spec: JobSpec, observer: Observer, *, priority: int, no_upload: bool) -> RemoteJob:
    """Uploads the data if it is a file of this machine, and submits the job."""
    source = spec.data.source
    path = Path(source).expanduser()
    if looks_like_path(source) and not no_upload:
        if path.exists():
            observer.phase(f"uploading {path.name}")
            uploaded = client.upload(path, progress=_progress(path.name, observer))
            spec = spec.model_copy(update={"data": spec.data.model_copy(update={"source": uploaded})})
        else:
            say(f"{source}: not on this machine, so a path of the service's")
    try:
        return client.submit(spec, priority=priority)
    except KeyboardInterrupt:
        raise InterruptedJobError("interrupted; `shardsgd jobs` tells whether the job was accepted") from None


def _progress(name: str, observer: Observer) -> Callable[[int, int], None]:
    """Tells an observer now and then how far an upload has come."""
    next_line = time.monotonic() + _UPLOAD_LINE_SECONDS

    def sent(done: int, total: int) -> None:
        nonlocal next_line
        if (now := time.monotonic()) >= next_line:
            next_line = now + _UPLOAD_LINE_SECONDS
            observer.phase(f"uploading {name}: {100 * done // total}%")

    return sent


def _as_written(job: Path) -> list[str]:
    """An override that keeps `data.source` as the file has it: a relative path is one of the service's then."""
    try:
        source = tomllib.loads(job.read_text(encoding="utf-8"))["data"]["source"]
    except (OSError, ValueError, KeyError, TypeError):  # what is wrong with the file is told by `read_spec`
        return []
    return [f"data.source={json.dumps(source)}"] if isinstance(source, str) else []
