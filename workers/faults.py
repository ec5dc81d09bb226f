"""Faults by declaration: what goes wrong in which worker and when, each exactly as often as it is declared.

For tests and for `benchmarks/chaos.py`; a run without faults carries none of this. A fault is entered in a ledger, a folder
on this machine, before it happens: so it happens once, whichever process it happens to, and what happened can be read later.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from shardsgd.workers.exchange import (
    BatchDistancesRequest,
    EvaluationRequest,
    GradientRequest,
    Gradients,
    Reply,
    Request,
    UpdateRequest,
    WorkerId,
)

Kind = Literal["kill", "segfault", "exit", "raise", "stop", "stuck", "slow", "corrupt", "nan", "notice"]
Point = Literal["start", "before compute", "before reply", "after reply"]
During = Literal["gradients", "update", "evaluation", "distances"]

_REQUESTS: Mapping[During, type[Request]] = {
    "gradients": GradientRequest,
    "update": UpdateRequest,
    "evaluation": EvaluationRequest,
    "distances": BatchDistancesRequest,
}


class InjectedError(Exception):
    """An exception by declaration."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, once.

    Attributes:
        kind: "kill" (SIGKILL), "segfault", "exit" (`os._exit`), "raise", "stop" (SIGSTOP), "stuck" (never returns), "slow"
            (sleeps), "corrupt" (a gradient sum a millionfold), "nan" (a gradient sum that is not a number), "notice" (SIGTERM).
        at: from this step on, at the first occasion; at the point "start": which start of a worker it is, from 0.
        point: of a worker's life or of its answering a request.
        worker: whose; None: whoever comes first.
        during: which request.
        seconds: how slow.
    """

    kind: Kind
    at: int
    point: Point = "before reply"
    worker: WorkerId | None = None
    during: During = "gradients"
    seconds: float = 0.0


@dataclass(frozen=True)
class FaultPlan:
    """Faults, and the folder in which those that happened are entered."""

    faults: tuple[Fault, ...]
    ledger: Path


@dataclass(frozen=True)
class Fired:
    """A fault that happened: which, in which step (or start), in whom."""

    fault: Fault
    at: int
    worker: WorkerId


def fired(plan: FaultPlan) -> list[Fired]:
    """What happened so far, in the order of declaration."""
    found = []
    for number, fault in enumerate(plan.faults):
        entry = plan.ledger / f"fault-{number}"
        if entry.exists():
            at, worker = entry.read_text().split()
            found.append(Fired(fault, int(at), int(worker)))
    return found


class FaultInjector:
    """A worker's faults."""

    def __init__(self, plan: FaultPlan, worker: WorkerId) -> None:
        self._plan = plan
        self._worker = worker
        self._pending = sorted(
            (number for number, fault in enumerate(plan.faults) if fault.worker in (None, worker)),
            key=lambda number: plan.faults[number].at,
        )

    def started(self) -> None:
        """To be called when a worker starts."""
        number = next(number for number in range(2**31) if self._claim(f"start-{number}", ""))
        for fault in self._due("start", number, None):
            self._happen(fault)

    def before_computing(self, request: Request) -> None:
        """To be called when a request has come."""
        for fault in self._due("before compute", request.step, request):
            self._happen(fault)

    def before_replying(self, reply: Reply) -> Reply:
        """To be called with an answer; returns the one to give."""
        for fault in self._due("before reply", reply.request.step, reply.request):
            if isinstance(reply, Gradients) and fault.kind in ("corrupt", "nan"):
                reply = _corrupted(reply, 1e6 if fault.kind == "corrupt" else float("nan"))
            else:
                self._happen(fault)
        return reply

    def after_replying(self, request: Request) -> None:
        """To be called once an answer was given."""
        for fault in self._due("after reply", request.step, request):
            self._happen(fault)

    def _due(self, point: Point, at: int, request: Request | None) -> Sequence[Fault]:
        """Faults whose time has come, entered in the ledger."""
        due = []
        for number in list(self._pending):
            fault = self._plan.faults[number]
            if fault.at > at:
                break
            if fault.point != point or (request is not None and not isinstance(request, _REQUESTS[fault.during])):
                continue
            if point == "start" and fault.at != at:
                continue
            self._pending.remove(number)
            if self._claim(f"fault-{number}", f"{at} {self._worker}"):
                due.append(fault)
                break
        return due

    def _claim(self, name: str, text: str) -> bool:
        """Enters a line in the ledger; False if somebody else was first."""
        try:
            handle = os.open(self._plan.ledger / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(text)
        return True

    def _happen(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                # Past any handler, as a real one that has corrupted the process might be.
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(1)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "notice":
                os.kill(os.getpid(), signal.SIGTERM)
            case "stuck":
                while True:
                    time.sleep(3600)
            case "slow":
                time.sleep(fault.seconds)
            case "raise":
                raise InjectedError(f"injected at {fault.point}")
            case _:
                raise ValueError(
                    f"{fault.kind} at {fault.point}: only gradients before they are replied can be corrupted"
                )


def _corrupted(reply: Gradients, factor: float) -> Gradients:
    """An answer of a machine that miscomputed: its sums and their norms alike."""
    for total in reply.sums.values():
        np.multiply(total, total.dtype.type(factor), out=total)
    norms = {node: norm * factor**2 for node, norm in reply.norms.items()}
    return replace(reply, norms=norms)
