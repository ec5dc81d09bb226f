"""The command line. Thin: reads arguments, shows what comes back, maps errors to exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import setproctitle
import typer

from shardsgd import advise_cli, remote_cli, remote_cli_steering, serve_cli, variance_cli
from shardsgd.api import TrainResult, default_out, train
from shardsgd.coordinator.control import Control
from shardsgd.coordinator.interrupts import interrupt_flag
from shardsgd.coordinator.records import as_json
from shardsgd.errors import InputError, InterruptedJobError, JobError
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec
from shardsgd.summary_view import summary_table
from shardsgd.terminal import LeavableConsole, display, exit_codes, print_json

app = typer.Typer(
    name="shardsgd",
    help="Data-parallel minibatch SGD: the same bits for any number of workers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `shardsgd` command."""
    # A terminal without Unicode shows question marks for Σ instead of failing after hours of training.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper, which the stubs do not say
    app()


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Data-parallel minibatch SGD: the same bits for any number of workers."""
    del context
    if show_version:
        typer.echo(f"shardsgd {version('shardsgd')}")
        raise typer.Exit


@app.command("train")
def train_command(
    job: Annotated[
        Path | None, typer.Argument(metavar="JOB.toml", help="The job spec; optional with --resume.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Ray workers; overrides workers.count.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field of the spec; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the run's files (default: runs/NAME).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Continue the interrupted run in DIR; ends in the same bits.")
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="With --resume: take DIR from a run that hangs; it writes nothing more."),
    ] = False,
    json_only: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Train in local multi-process mode, without a server."""
    with exit_codes():
        spec = _spec(job, resume, [*(overrides or []), *([f"workers.count={workers}"] if workers is not None else [])])
        if resume is not None and out is not None and out.resolve() != resume.resolve():
            raise InputError(f"--out {out}: a resumed run stays in its folder, {resume}")
        folder = resume or out or default_out(spec)
        try:
            result = _train(spec, folder, resume=resume is not None, take_over=take_over, quiet=json_only)
        except (JobError, InterruptedJobError) as error:
            if json_only and error.summary is not None:
                print_json(as_json(error.summary))
            raise
        if json_only:
            print_json(as_json(result.summary))
        else:
            LeavableConsole().print(summary_table(result.summary, folder, batch_size=spec.batch.size))


def _spec(job: Path | None, resume: Path | None, overrides: list[str]) -> JobSpec:
    if job is None and resume is None:
        raise InputError("JOB.toml is missing; examples/digits.toml is one to start from")
    path = job or Path(resume or "") / "job.toml"
    if job is None and not path.is_file():
        raise InputError(f"--resume {resume}: no run to resume here (no job.toml)")
    return read_spec(path, overrides)


def _train(spec: JobSpec, folder: Path, *, resume: bool, take_over: bool, quiet: bool) -> TrainResult:
    setproctitle.setproctitle(f"shardsgd-loop {spec.name}")
    with display(quiet=quiet) as observer, interrupt_flag(leaving=True) as interrupted:
        return train(
            spec, out=folder, resume=resume, take_over=take_over, observer=observer, control=Control(interrupted)
        )


advise_cli.register(app)
serve_cli.register(app)
variance_cli.register(app)
remote_cli.register(app)
remote_cli_steering.register(app)
