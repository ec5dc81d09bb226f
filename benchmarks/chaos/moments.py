"""The moments at which a coordinator is killed."""

from __future__ import annotations

import os
import random
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.chaos.watch import FolderWatch

Phase = Literal["start", "steps", "checkpoint"]

# Of a hundred kills: half in the first seconds.
_SHARES: dict[Phase, int] = {"start": 50, "steps": 25, "checkpoint": 25}
# Long enough for a few checkpoints to be made; one of the large model takes some tens of milliseconds to write.
_STEPS_SECONDS, _WRITING_SECONDS = 2.0, 0.06
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        phase: from when `seconds` count: the process's start, its first step, or the moment when it begins to write a
            checkpoint.
        seconds: to wait then.
    """

    phase: Phase
    seconds: float

    @classmethod
    def drawn(cls, chance: random.Random, start_seconds: float) -> Moment:
        """A random one.

        Args:
            chance: the generator.
            start_seconds: from the process's start to its first step.
        """
        phase = chance.choices(list(_SHARES), weights=list(_SHARES.values()))[0]
        most = {"start": start_seconds, "steps": _STEPS_SECONDS, "checkpoint": _WRITING_SECONDS}[phase]
        return cls(phase, chance.uniform(0, most))

    def wait(self, pid: int, steps: Path, checkpoints: Path) -> bool:
        """Returns when it has come; False if the process has ended first.

        Args:
            pid: of the process, just started.
            steps: the file that it makes after its first step.
            checkpoints: the folder that its checkpoints go to.
        """
        process = os.pidfd_open(pid)
        try:
            if self.phase != "start":
                folder, prefix = (steps.parent, steps.name) if self.phase == "steps" else (checkpoints, ".step-")
                folder.mkdir(parents=True, exist_ok=True)
                with FolderWatch(folder) as watch:
                    if not (steps.exists() and self.phase == "steps") and not watch.wait_for(
                        prefix, process, _PATIENCE_S
                    ):
                        return False
            return not select.select([process], [], [], self.seconds)[0]
        finally:
            os.close(process)
