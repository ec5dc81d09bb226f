"""The shared-memory exchange without gradients: parameter `bytes`, of float32, in each of two real workers' sums.

A repetition is what the exchange does in a step: a round of requests and answers for the leaves (which are not computed: the
sums lie there from before, as the gradients lie in gloo's buffers), then the round in which the workers add both sums, with the
norm of the result, divide by the number of summands and leave the average where both can read it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from benchmarks.orders import Orders
from shardsgd.coordinator.members import Members
from shardsgd.coordinator.rounds import Rounds
from shardsgd.coordinator.staffing import Limits
from shardsgd.model.layout import Flat
from shardsgd.model.networks import Network
from shardsgd.model.optimizers import StateBuffers
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling
from shardsgd.workers.exchange import GradientRequest, UpdateRequest
from shardsgd.workers.pool import WorkerPool
from shardsgd.workers.ray_runtime import ray_runtime
from shardsgd.workers.shared_memory_exchange import SharedMemoryExchange

_WORKERS = 2
_FEATURES = 100


@dataclass(frozen=True)
class Average:
    """An update rule that updates nothing: the average itself goes where θ_{t+1} would."""

    slots = 0

    def update(self, total: Flat, scale: float, rate: float, before: StateBuffers, after: StateBuffers) -> None:
        """Scales the block."""
        del rate, before
        np.multiply(total, total.dtype.type(scale), out=after.theta)


def main() -> None:
    """Averages until the harness says that it is time to end."""
    orders = Orders.from_arguments()
    outputs = orders.parameters["bytes"] // 4 // (_FEATURES + 1)
    sampling = Sampling(seed=0, rows=_WORKERS, batch=_WORKERS, shards=_WORKERS, kind="shuffle")
    network = Network(_FEATURES, (), outputs, "relu")
    problem = Problem(network, "softmax_cross_entropy", sampling, "float32", 0, optimizer=Average())
    row = (np.ones((1, _FEATURES), np.float32), np.zeros(1, np.int32))
    with ExitStack() as stack:
        environment = stack.enter_context(ray_runtime(cpus=_WORKERS, object_store_bytes=100 * 2**20))
        pool = WorkerPool(
            problem, [row] * _WORKERS, (row[0][:0], row[1][:0]), workers=_WORKERS, environment=environment
        )
        stack.callback(pool.close)
        exchange = SharedMemoryExchange(pool, problem)
        stack.callback(exchange.close)
        members = Members(exchange, Limits(most=_WORKERS), time.monotonic, target=_WORKERS)
        rounds = Rounds(exchange, members, time.monotonic)
        answers = rounds.run(_WORKERS, lambda version, *leaves: GradientRequest(0, version, *leaves))
        first, second = (total for answer in answers for total in answer.sums.values())
        holders = tuple(((shard, shard + 1), shard) for shard in range(_WORKERS))
        blocks = len(problem.layout.blocks)

        def average(count: int) -> None:
            for number in range(count):
                for worker in exchange.workers:
                    exchange.send(worker, UpdateRequest(0, -1, 0, 0, _WORKERS, 0.0, holders))
                answered = 0
                while answered < _WORKERS:
                    answered += len(exchange.receive(1.0))
                exchange.publish(number % 2)
                rounds.run(blocks, lambda *where: UpdateRequest(0, *where, _WORKERS, 0.0, holders), repeatable=False)

        average(2)
        expected = (first + second) / _WORKERS
        assert all(np.array_equal(state.theta, expected) for state in exchange.states), "the average is right"
        orders.obey(average)


if __name__ == "__main__":
    main()
