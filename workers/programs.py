"""Compiled programs of a worker, kept from one job for the next one that needs the same."""

from __future__ import annotations

from typing import NamedTuple

from shardsgd.model.distances import DistancePrograms, distance_programs
from shardsgd.model.evaluation import EvaluationProgram, evaluation_program
from shardsgd.model.leaf import LeafProgram, leaf_program
from shardsgd.model.networks import Network
from shardsgd.model.problem import LossName, Precision, Problem
from shardsgd.model.sampling import Sampling

# A compiled program takes a few megabytes.
_MOST = 4


class _Key(NamedTuple):
    """All of a problem that its programs depend on."""

    network: Network
    loss: LossName
    precision: Precision
    leaf_rows: int


_OfProblem = tuple[LeafProgram, EvaluationProgram, DistancePrograms]


class Programs:
    """The programs of the last few problems. A job that does not find its own compiles it."""

    def __init__(self) -> None:
        self._kept: dict[_Key, _OfProblem] = {}

    def of(self, problem: Problem) -> _OfProblem:
        """A problem's programs; each is compiled when it is called for the first time."""
        key = _Key(problem.network, problem.loss, problem.precision, problem.sampling.leaf_rows)
        # Made from the key alone, and always, so that nothing can get into a program that is not in its key.
        programs = self._kept.pop(key, None) or _made(key)
        self._kept[key] = programs
        if len(self._kept) > _MOST:
            del self._kept[next(iter(self._kept))]
        return programs


def _made(key: _Key) -> _OfProblem:
    sampling = Sampling(seed=0, rows=key.leaf_rows, batch=key.leaf_rows, shards=1, kind="shuffle")
    problem = Problem(key.network, key.loss, sampling, key.precision, validation_rows=0)
    return leaf_program(problem), evaluation_program(problem), distance_programs(problem)
