"""`shardsgd variance`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import setproctitle
import typer

from shardsgd.coordinator.control import Control
from shardsgd.coordinator.interrupts import interrupt_flag
from shardsgd.errors import InputError, InterruptedJobError, JobError
from shardsgd.spec_files import read_spec
from shardsgd.terminal import LeavableConsole, exit_codes
from shardsgd.variance_api import default_variance_out, variance
from shardsgd.variance_view import LiveMeasurement, PlainMeasurement, variance_tables

if TYPE_CHECKING:
    from shardsgd.coordinator.variance.records import VarianceObserver


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("variance")(exit_codes()(variance_command))


def variance_command(
    job: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job spec.")],
    at: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Measure at the newest checkpoint of this job's run in DIR (default: step 0)."
        ),
    ] = None,
    batches: Annotated[
        str | None, typer.Option(metavar="B,B,…", help="Batch sizes (default: powers of two, and all rows).")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            metavar="R",
            help="Batches drawn of each size, with and without replacement (default: 100; of small ones more).",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Ray workers; overrides workers.count.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field of the spec; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the files (default: runs/NAME-variance).")
    ] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Print only variance.json.")] = False,
) -> None:
    """Measure the gradient's variance against the batch size, at parameters that do not change."""
    spec = read_spec(job, [*(overrides or []), *([f"workers.count={workers}"] if workers is not None else [])])
    sizes = None if batches is None else _sizes(batches)
    folder = out or default_variance_out(spec)
    setproctitle.setproctitle(f"shardsgd-loop {spec.name}")
    try:
        with _display(quiet=json_only) as observer, interrupt_flag(leaving=True) as interrupted:
            result = variance(
                spec,
                at=at,
                batches=sizes,
                repeats=repeats,
                out=folder,
                observer=observer,
                control=Control(interrupted),
            )
    except (JobError, InterruptedJobError):
        if json_only:
            _print_file(folder)
        raise
    if json_only:
        _print_file(folder)
    else:
        LeavableConsole().print(variance_tables(result.variance, result.out))


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--batches {text}: accepted: whole numbers with commas between them, such as 1,2,4") from None


def _display(*, quiet: bool) -> AbstractContextManager[VarianceObserver | None]:
    """Shows a measurement for the length of a block: as a bar on a terminal, as lines in a pipe, or not at all."""
    if quiet:
        return nullcontext()
    console = LeavableConsole()
    return LiveMeasurement(console) if console.is_interactive else PlainMeasurement(sys.stdout)


def _print_file(folder: Path) -> None:
    """Prints variance.json, if it came that far."""
    path = folder / "variance.json"
    if path.exists():
        sys.stdout.write(path.read_text(encoding="utf-8"))
        sys.stdout.flush()
