"""What a driver sees while something happens to a node: which of its calls fail or are late, and what Ray says of the nodes."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from typing import Any

import ray

from benchmarks.cluster.conversation import LATE_S

_POLL_S = 0.02
_PAUSE_S = 0.05
_PAYLOAD_BYTES = 10_000_000


def watch(actors: list[Any], watched: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Keeps a call of every kind on its way, and reports, until there is input on stdin.

    Kinds: `never` is a call of the watched actor that does not return, made once; `pass` brings it 10 MB made here; `call` is a
    small one, of each actor. Reports: `{"call", "actor", "sent", "at", "outcome"}` for one that `failed` otherwise than the one
    before it, with `error`; is `back`, being answered after such; or is `late`, being answered after half a second or more. And
    `{"node", "alive", "at"}` when Ray changes its mind about a node, by its address.

    Args:
        actors: of class `driver.Resident`.
        watched: the index of the one on the node to which something will happen.
        say: takes a report.
    """
    open_calls: dict[Any, tuple[str, int, float]] = {}
    due: dict[tuple[str, int], float] = {("never", watched): 0.0, ("pass", watched): 0.0}
    due |= {("call", index): 0.0 for index in range(len(actors))}
    failing: dict[tuple[str, int], str] = {}
    alive = _alive()
    while not select.select([sys.stdin], [], [], _POLL_S)[0]:
        now = time.monotonic()
        for (kind, index), when in list(due.items()):
            if now >= when:
                del due[kind, index]
                open_calls[_send(actors[index], kind)] = (kind, index, now)
        for done in ray.wait(list(open_calls), num_returns=len(open_calls), timeout=0)[0] if open_calls else []:
            kind, index, sent = open_calls.pop(done)
            error = _error(done)
            at = time.monotonic()
            if outcome := _outcome(error, failing.get((kind, index)), at - sent):
                say({"call": kind, "actor": index, "sent": sent, "at": at, "outcome": outcome, "error": error or ""})
            if error is None:
                failing.pop((kind, index), None)
            else:
                failing[kind, index] = _class(error)
            if kind != "never":
                due[kind, index] = at + _PAUSE_S
        seen = _alive()
        at = time.monotonic()
        for node, (address, lives) in seen.items():
            if alive.get(node, (address, False))[1] != lives:
                say({"node": address, "alive": lives, "at": at})
        alive = seen


def _outcome(error: str | None, failed_before: str | None, seconds: float) -> str | None:
    if error is not None:
        return None if _class(error) == failed_before else "failed"
    if failed_before is not None:
        return "back"
    return "late" if seconds >= LATE_S else None


def _class(error: str) -> str:
    return error.partition(":")[0]


def _send(actor: Any, kind: str) -> Any:
    if kind == "never":
        return actor.never.remote()
    if kind == "pass":
        return actor.length.remote(ray.put(b"\0" * _PAYLOAD_BYTES))
    return actor.whereabouts.remote()


def _error(done: Any) -> str | None:
    try:
        ray.get(done)
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def _alive() -> dict[str, tuple[str, bool]]:
    return {node["NodeID"]: (node["NodeManagerAddress"], node["Alive"]) for node in ray.nodes()}
