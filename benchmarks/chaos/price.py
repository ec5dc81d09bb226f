"""The price where nothing goes wrong: step times of this checkout against those of another one, in turn."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks import alternate
from benchmarks.chaos.options import Options
from benchmarks.contender import Contender
from benchmarks.results import Comparison
from benchmarks.work import job, ours, write_rows

HERE, THERE = "this checkout", "the other"
GOAL = 1.03
_BATCHES, _SHARDS = (64, 256, 1024), (2, 8)
# Short turns, many of them: what neighbours on the machine do changes within seconds, and a price of 3% is to be told.
_ROUNDS, _QUICK_ROUNDS = 80, 4
_TURN_SECONDS = 0.3
_MAPPED = ("coordinator", "model", "protos", "workers")


def measure(options: Options) -> Iterator[Comparison]:
    """A comparison for each batch size and number of shards.

    Raises:
        ValueError: there is nothing to compare with.
    """
    if options.against is None:
        raise ValueError("price: --against PATH, a checkout to compare with, is missing")
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    turns = alternate.Options(options.rounds or rounds, _TURN_SECONDS, options.quick, options.scratch)
    for work, spec in _works(write_rows(options.scratch / "rows.npz"), quick=options.quick):
        yield alternate.compare(work, _contenders(spec, options), turns)


def commit(checkout: Path) -> str:
    """Of a checkout, and whether it was changed since; a dash where git knows nothing of it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() or "–"


def here() -> Path:
    """This checkout."""
    return Path(__file__).parents[2]


def _works(source: Path, *, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for batch in _BATCHES[:1] if quick else _BATCHES:
        for shards in _SHARDS[:1] if quick else _SHARDS:
            yield f"B = {batch}, V = {shards}", job(source, batch=batch, shards=shards)


def _contenders(spec: dict[str, Any], options: Options) -> list[Contender]:
    assert options.against is not None, "there is something to compare with"
    checkouts = {HERE: here(), THERE: options.against.resolve()}
    return [
        replace(ours(name, spec), environment=_environment(checkout, options.scratch))
        for name, checkout in checkouts.items()
    ]


def _environment(checkout: Path, scratch: Path) -> dict[str, str]:
    """Has Python take package and benchmarks, and so the contender too, from a checkout."""
    tree = Path(mkdtemp(dir=scratch))
    package = tree / "shardsgd"
    package.mkdir()
    for path in (checkout / "client").iterdir():
        (package / path.name).symlink_to(path)
    for name in _MAPPED:
        (package / name).symlink_to(checkout / name)
    (tree / "benchmarks").symlink_to(checkout / "benchmarks")
    # SAFEPATH: the folder that the harness runs in, whose benchmarks these would be otherwise, is not looked at.
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
