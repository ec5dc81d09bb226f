"""What all commands share: what they print where, and what they exit with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import typer
from rich.console import Console

from shardsgd.coordinator.records import Observer, Silent
from shardsgd.errors import EXIT_INTERRUPTED, InterruptedJobError, ShardsgdError
from shardsgd.progress import LiveProgress, PlainProgress, discard_output


class LeavableConsole(Console):
    """A console whose reader may leave: `shardsgd train … | head` is no error."""

    def on_broken_pipe(self) -> None:
        """Drops what is still to be printed."""
        discard_output(sys.stdout)


def display(*, quiet: bool) -> AbstractContextManager[Observer]:
    """Shows a run for the length of a block: as a live line on a terminal, as lines in a pipe, or not at all."""
    if quiet:
        return nullcontext(Silent())
    console = LeavableConsole()
    return LiveProgress(console) if console.is_interactive else PlainProgress(sys.stdout)


def print_json(value: Any) -> None:
    """Prints an object for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


@contextmanager
def exit_codes() -> Iterator[None]:
    """Maps errors to exit codes, with one clear message on stderr and no traceback."""
    try:
        yield
    except InterruptedJobError as error:
        say(str(error))
        raise typer.Exit(error.exit_code) from None
    except ShardsgdError as error:
        say(f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has gone (`… | head`); the run itself is done or its files are written.
        discard_output(sys.stdout)


def say(message: str) -> None:
    """Prints a line on stderr."""
    with suppress(OSError):  # nobody reads it where the terminal has gone
        typer.echo(message, err=True)
