"""Which jobs begin now, and how many are before a job. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A job that is queued.

    Attributes:
        job_id: its name.
        owner: whose it is.
        priority: higher ones begin first.
        created_at: when it was accepted; within a priority earlier ones begin first.
        workers: how many it asks for.
    """

    job_id: str
    owner: str
    priority: int
    created_at: float
    workers: int


@dataclass(frozen=True)
class Running:
    """A job that holds workers.

    Attributes:
        job_id: its name.
        owner: whose it is.
        workers: how many it holds.
    """

    job_id: str
    owner: str
    workers: int


def next_jobs(
    waiting: Sequence[Waiting], running: Sequence[Running], *, capacity: int, per_owner: int | None
) -> list[Waiting]:
    """The jobs that begin now.

    The first that does not fit blocks those behind it, so that a wide one is not overtaken by narrow ones for ever. A job that
    its owner's limit holds back blocks that owner's later jobs only. A job wider than a limit, which a service started with
    smaller ones may find in its store, blocks nobody: it could never begin.

    Args:
        waiting: the queued jobs, in any order.
        running: the jobs that hold workers.
        capacity: workers that may compute at a time.
        per_owner: of these, how many one owner's jobs may hold; None: all.

    Returns:
        In the order in which they begin.
    """
    limit = capacity if per_owner is None else min(per_owner, capacity)
    free = capacity - sum(job.workers for job in running)
    held = Counter[str]()
    for each in running:
        held[each.owner] += each.workers
    begin: list[Waiting] = []
    blocked: set[str] = set()
    for job in _in_order(waiting):
        if job.workers > limit or job.owner in blocked:
            continue
        if per_owner is not None and held[job.owner] + job.workers > per_owner:
            blocked.add(job.owner)
            continue
        if job.workers > free:
            break
        begin.append(job)
        free -= job.workers
        held[job.owner] += job.workers
    return begin


def queue_position(job_id: str, waiting: Sequence[Waiting]) -> int | None:
    """How many queued jobs come before one; None if it is not queued itself."""
    order = [job.job_id for job in _in_order(waiting)]
    return order.index(job_id) if job_id in order else None


def _in_order(waiting: Sequence[Waiting]) -> list[Waiting]:
    # The name decides between jobs of the same moment, so that the order is one and the same for everybody.
    return sorted(waiting, key=lambda job: (-job.priority, job.created_at, job.job_id))
