"""`shardsgd serve` and `shardsgd token`: for whoever runs the service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from shardsgd.errors import InputError
from shardsgd.terminal import exit_codes


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("serve")(exit_codes()(serve_command))
    app.command("token")(exit_codes()(token_command))


def serve_command(
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0: any free one.")] = (
        "127.0.0.1:50051"
    ),
    store: Annotated[Path, typer.Option(metavar="DIR", help="Folder of jobs, datasets and results.")] = Path("store"),
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Workers over all jobs (default: one for each core).")
    ] = None,
    warm: Annotated[int, typer.Option(metavar="N", min=0, help="Workers made ready before the first job comes.")] = 0,
    data_root: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder that jobs may read data from; repeatable.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may come: a line OWNER ROLE SHA256 for each token.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only clients with a certificate of this CA may come, PEM.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain text also on an address that others can reach.")
    ] = False,
    reflection: Annotated[bool, typer.Option("--reflection", help="Tell clients what calls there are.")] = False,
    max_open_jobs: Annotated[int, typer.Option(metavar="N", min=0, help="Unended jobs of an owner; 0: any.")] = 1000,
    max_owner_workers: Annotated[int, typer.Option(metavar="N", min=0, help="Workers of an owner; 0: any.")] = 0,
    max_dataset_bytes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Bytes of an owner's datasets; 0: any.")
    ] = 20 * 2**30,
    max_upload_bytes: Annotated[int, typer.Option(metavar="N", min=0, help="Bytes of one dataset; 0: any.")] = 4
    * 2**30,
    object_store_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=80 * 2**20, help="Memory for datasets (default: Ray's choice).")
    ] = None,
) -> None:
    """Serve jobs over gRPC until SIGTERM or Ctrl-C; both leave every job with a checkpoint."""
    # Imported here: no other command needs grpc's server.
    import asyncio  # noqa: PLC0415

    from shardsgd.coordinator.service.limits import Limits  # noqa: PLC0415
    from shardsgd.coordinator.service.server import ServeOptions, serve  # noqa: PLC0415

    options = ServeOptions(
        address=address,
        store=store,
        capacity=workers or len(os.sched_getaffinity(0)),
        warm=warm,
        roots=tuple(data_root or ()),
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        insecure=insecure,
        reflection=reflection,
        limits=Limits(
            open_jobs=max_open_jobs or None,
            workers=max_owner_workers or None,
            dataset_bytes=max_dataset_bytes or None,
            upload_bytes=max_upload_bytes or None,
        ),
        object_store_bytes=object_store_bytes,
    )

    def listening(where: str) -> None:
        typer.echo(f"shardsgd serves on {where}")

    asyncio.run(serve(options, listening))


def token_command(
    owner: Annotated[str, typer.Argument(help="Whose jobs and datasets are seen with it.")],
    administrator: Annotated[bool, typer.Option("--administrator", help="Everybody's are.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a service; the token's line is added to it.")
    ] = None,
) -> None:
    """Make a token for a service: printed once, and kept nowhere; the service knows only its hash."""
    from shardsgd.coordinator.service.access import make_token, token_line  # noqa: PLC0415

    token, token_hash = make_token()
    line = token_line(owner, "administrator" if administrator else "user", token_hash)
    typer.echo(token)
    if token_file is None:
        typer.echo(f"for the service's token file: {line}", err=True)
        return
    try:
        handle = os.open(token_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(line + "\n")
    except OSError as error:
        raise InputError(f"--token-file {token_file}: {error.strerror or error}") from None
