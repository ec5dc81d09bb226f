"""`shardsgd advise`: which batch size, how many workers, which learning rate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import setproctitle
import typer

from shardsgd.advice_view import advice_object, advice_table
from shardsgd.advise import SECONDS, advise
from shardsgd.coordinator.advice.words import sentences
from shardsgd.coordinator.control import Control
from shardsgd.coordinator.files import write_atomically
from shardsgd.coordinator.interrupts import interrupt_flag
from shardsgd.errors import InputError
from shardsgd.spec_files import read_spec
from shardsgd.terminal import LeavableConsole, display, exit_codes, print_json


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("advise")(exit_codes()(advise_command))


def advise_command(
    job: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job spec.")],
    at: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Take the noise scale of the ended run in DIR; measure only times."),
    ] = None,
    batches: Annotated[
        str | None, typer.Option(metavar="B,B,…", help="Batch sizes to time beside the job's own (default: a handful).")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Numbers of workers to time (default: 1, half and all).")
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="Of training, for the noise scale; an epoch at least.")
    ] = (SECONDS),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field of the spec; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for advice.json.")] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Print only the advice, as JSON.")] = False,
) -> None:
    """Measure which batch size and how many workers make the most progress per second."""
    spec = read_spec(job, overrides or [])
    sizes, counts = _numbers("--batches", batches), _numbers("--workers", workers)
    setproctitle.setproctitle(f"shardsgd-loop {spec.name}")
    with display(quiet=json_only) as observer, interrupt_flag(leaving=True) as interrupted:
        advice = advise(
            spec, at=at, batches=sizes, workers=counts, seconds=seconds, observer=observer, control=Control(interrupted)
        )
    result = advice_object(advice)
    if json_only:
        print_json(result)
    else:
        console = LeavableConsole()
        console.print(advice_table(advice))
        console.print()
        for sentence in sentences(advice):
            console.print(sentence, markup=False, highlight=False)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / "advice.json", (json.dumps(result, indent=2) + "\n").encode())
        except OSError as error:
            raise InputError(f"--out {out}: advice.json cannot be written: {error.strerror or error}") from None


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: must be integers with commas between them, such as 64,128,256") from None
