"""Whether faults happened as declared: each once, and at its first occasion. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shardsgd.workers.faults import Fault, Fired


def fired_once(declared: Sequence[Fault], happened: Sequence[Fired]) -> str:
    """Every fault once, none in the wrong worker; empty if that is so. (The ledger allows none to happen twice.)"""
    missing = list(declared)
    for each in happened:
        missing.remove(each.fault)
    wrong = [each for each in happened if each.fault.worker not in (None, each.worker)]
    return "; ".join(
        [*(f"did not happen: {fault}" for fault in missing), *(f"in the wrong worker: {each}" for each in wrong)]
    )


def at_first_occasion(happened: Sequence[Fired], steps_per_epoch: int) -> str:
    """Whether those that may hit any worker came in their step, or later only because others took every occasion before.

    One occasion is taken by one fault. Those of one worker have theirs when it is there, which only the run knows.
    """
    taken = {(each.at, each.fault.point, each.fault.during) for each in happened}
    early = [each for each in happened if each.at < each.fault.at]
    late = []
    for each in happened:
        fault = each.fault
        if fault.point == "start" or fault.worker is not None:
            continue
        occasions: Iterable[int] = range(fault.at, each.at)
        if fault.during == "evaluation":
            occasions = (step for step in occasions if step % steps_per_epoch == 0)
        if any((step, fault.point, fault.during) not in taken for step in occasions):
            late.append(each)
    return "; ".join([*(f"too early: {each}" for each in early), *(f"an occasion was missed: {each}" for each in late)])


def in_their_step(happened: Sequence[Fired]) -> int:
    """How many happened in the very step, or start, that they were declared for."""
    return sum(each.at == each.fault.at for each in happened)
