"""The options with which every command finds its service."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardsgd.errors import RefusedError, ServiceUnavailableError
from shardsgd.remote_endpoint import DEFAULT_ADDRESS, read_token
from shardsgd.terminal import exit_codes

if TYPE_CHECKING:
    from shardsgd.remote import Client

_PANEL = "The service"
# A person who watches bears with more than a program, which is told by its exit code.
_PATIENCE_S = 300.0
_WHO = "\n  --token-file or SHARDSGD_TOKEN_FILE names a file that holds your token"
_WHERE = "\n  --server or SHARDSGD_SERVER says where it is; `shardsgd serve` starts one"


@dataclass(frozen=True)
class Connection:
    """How to reach a service; each field is an option of every command that needs one.

    Attributes:
        server: HOST:PORT.
        token_file: holds the token; a token is never an argument, which everybody on the machine could read.
        tls_ca: see `Client`, like the next three.
        tls_cert: …
        tls_key: …
        insecure: …
    """

    server: Annotated[
        str,
        typer.Option(
            "--server", metavar="HOST:PORT", envvar="SHARDSGD_SERVER", help="Its address.", rich_help_panel=_PANEL
        ),
    ] = DEFAULT_ADDRESS
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            envvar="SHARDSGD_TOKEN_FILE",
            help="Holds your token.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca",
            metavar="FILE",
            envvar="SHARDSGD_TLS_CA",
            help="Who may have signed its certificate, PEM.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            metavar="FILE",
            envvar="SHARDSGD_TLS_CERT",
            help="Your certificate, PEM.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(
            "--tls-key", metavar="FILE", envvar="SHARDSGD_TLS_KEY", help="Its key, PEM.", rich_help_panel=_PANEL
        ),
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain text also to another machine.", rich_help_panel=_PANEL)
    ] = False

    def client(self, **changes: Any) -> Client:
        """A client of the service.

        Args:
            changes: further arguments of `Client`.

        Raises:
            InputError: an option cannot be used.
        """
        # What gRPC's C library says on stderr about a broken connection is for its developers; errors say it in words.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from shardsgd.remote import Client  # noqa: PLC0415  # grpc, which no other command needs

        arguments: dict[str, Any] = {"patience_s": _PATIENCE_S} | changes
        return Client(
            self.server,
            token=None if self.token_file is None else read_token(self.token_file),
            tls_ca=self.tls_ca,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            insecure=self.insecure,
            **arguments,
        )

    def command(self, *words: str) -> str:
        """A further command for the same service, as the user would type it."""
        line = ["shardsgd", *words]
        for field in fields(self):
            value = getattr(self, field.name)
            variable = f"SHARDSGD_{field.name.upper()}"
            known = os.environ.get(variable) or field.default
            if value != field.default and str(value) != str(known):
                option = f"--{field.name.replace('_', '-')}"
                line += [option] if value is True else [option, str(value)]
        return shlex.join(line)


def service_command(function: Callable[..., None]) -> Callable[..., None]:
    """A command that needs a service, from a function whose first parameter is the Connection.

    It gets the connection's options beside its own, and errors become messages and exit codes.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    hints = inspect.get_annotations(Connection, eval_str=True)
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(Connection)
    ]

    @wraps(function)
    def command(**given: Any) -> None:
        with exit_codes():
            connection = Connection(**{option.name: given.pop(option.name) for option in options})
            try:
                function(connection, **given)
            except ServiceUnavailableError as error:
                hint = "" if error.reason else _WHERE
                raise ServiceUnavailableError(f"{error}{hint}", error.reason, error.code) from None
            except RefusedError as error:
                if error.code != "UNAUTHENTICATED" or connection.token_file is not None:
                    raise
                raise RefusedError(f"{error}{_WHO}", error.reason, error.code) from None

    parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *options]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command
