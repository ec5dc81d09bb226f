"""`shardsgd`, but that it says after every step that it is done, in the file that CHAOS_STEPS names: see `steplog`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from benchmarks.chaos.steplog import StepLog
from shardsgd import cli

STEPS_VARIABLE = "CHAOS_STEPS"


def main() -> None:
    """The command."""
    path = Path(os.environ[STEPS_VARIABLE])
    cli._display = lambda **_: nullcontext(StepLog(path))
    cli.main()


if __name__ == "__main__":
    main()
