"""How long things took, from the ledger of faults and the book of incidents. Pure, but for reading the ledger's times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shardsgd.workers.faults import Fault, Fired

Incidents = Sequence[dict[str, Any]]

# A process that ends by itself; one that hangs is noticed by waiting, one that corrupts by computing again.
_DEATHS = ("kill", "segfault", "exit")
_HANGS = ("stop", "stuck")
_GONE = ("lost", "left", "start failed")


class Delays(NamedTuple):
    """Seconds.

    Attributes:
        number: of cases.
        p50: median.
        p99: 99th percentile.
        most: maximum.
    """

    number: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Delays:
        """Percentiles by nearest rank; zeros where there are no values."""
        ordered = sorted(values)
        if not ordered:
            return cls(0, 0.0, 0.0, 0.0)
        p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
        return cls(len(ordered), p50, p99, ordered[-1])


def until_noticed(declared: Sequence[Fault], ledger: Path, incidents: Incidents) -> dict[str, Delays]:
    """From a fault that costs a worker until the run knows that it is lost, by kind; starts, which are watched less, apart."""
    gone: dict[int, list[float]] = defaultdict(list)
    for incident in incidents:
        if incident["kind"] in _GONE:
            gone[incident["worker"]].append(incident["time"])
    found: dict[str, list[float]] = defaultdict(list)
    for number, fault in enumerate(declared):
        entry = ledger / f"fault-{number}"
        if fault.kind not in _DEATHS + _HANGS or not entry.exists():
            continue
        happened, worker = entry.stat().st_mtime, int(entry.read_text().split()[1])
        # The kernel's file times are some milliseconds coarse.
        noticed = [at - happened for at in gone[worker] if at - happened > -0.01]
        if noticed:
            kind = "death" if fault.kind in _DEATHS else "hang"
            found[f"{kind} while it starts" if fault.point == "start" else kind].append(max(noticed[0], 0.0))
    return {kind: Delays.of(values) for kind, values in sorted(found.items())}


def until_recovered(happened: Sequence[Fired], incidents: Incidents) -> dict[str, Delays]:
    """From noticing a disturbance until its round is complete: all, and by kind where a step had faults of one kind only."""
    kinds: dict[int, set[str]] = defaultdict(set)
    for each in happened:
        if each.fault.point != "start":
            kinds[each.at].add(each.fault.kind)
    found: dict[str, list[float]] = {"all": []}
    for incident in incidents:
        if incident["kind"] == "recovered":
            found["all"].append(incident["seconds"])
            if len(kinds[incident["step"]]) == 1:
                (kind,) = kinds[incident["step"]]
                found.setdefault(kind, []).append(incident["seconds"])
    return {kind: Delays.of(values) for kind, values in found.items()}


def until_replaced(incidents: Incidents) -> Delays:
    """From the loss of a worker, or notice to it, until another one of its number has joined."""
    since: dict[int, float] = {}
    found = []
    for incident in incidents:
        worker = incident["worker"]
        if incident["kind"] in _GONE:
            since.setdefault(worker, incident["at"])
        elif incident["kind"] == "joined" and worker in since:
            found.append(incident["at"] - since.pop(worker))
    return Delays.of(found)
