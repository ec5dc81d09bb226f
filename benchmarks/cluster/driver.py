"""A Ray program for the inside of a node: takes orders on stdin, says what it sees on stdout, a JSON object a line each.

    python -m benchmarks.cluster.driver ADDRESS [NODE_ADDRESS]

| order | answer |
|---|---|
| `{"spread": [address, …]}` | `{"placed": [{address, ran_on, pid, node_id}, …]}`: an actor on each of these nodes |
| `{"pass": bytes}` | `{"passed": [{from, to, seconds}, …]}`: an object of that size, made by each actor, read by each other |
| `{"lend": bytes}` | `{"lent": [true, …]}`: whether each actor could read an object of that size, made here, in ten seconds |
| `{"watch": index}` | `{"watching": index}`, then what `watching` sees, until the next order, then `{"watched": index}` |

Times are by `time.monotonic`, which is the same in all processes of a machine. It ends with its input.

NODE_ADDRESS is the address of the node that it runs on. Ray looks for that node among the processes of the machine and so
finds those of all nodes; without the address it takes the head.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks.cluster.watching import watch

LEND_LIMIT_S = 10.0


class Resident:
    """An actor that stays where it was put."""

    def whereabouts(self) -> tuple[str, str, int]:
        """Ray's id of its node, the node's address, its process."""
        context = ray.get_runtime_context()
        return context.get_node_id(), ray.util.get_node_ip_address(), os.getpid()

    def make(self, size: int) -> list[ray.ObjectRef[Any]]:
        """An object of so many bytes in its node's store."""
        return [ray.put(b"\0" * size)]

    def length(self, data: bytes) -> int:
        """Of an object that Ray has brought here."""
        return len(data)

    def never(self) -> None:
        """Does not return."""
        while True:
            time.sleep(3600)


# No CPU: a node has one, and it may be taken.
_REMOTE: Any = ray.remote(num_cpus=0, max_concurrency=4)(Resident)


def main() -> None:
    """Obeys until there are no more orders."""
    address, *node_address = sys.argv[1:]
    # Ray prints where it likes: stdout is for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers)

    ray.init(address=address, log_to_driver=False, _node_ip_address=node_address[0] if node_address else None)
    say({"joined": ray.util.get_node_ip_address()})
    actors: list[Any] = []
    # Not by iteration, which reads ahead: `watch` must see that there is another order.
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "spread" in order:
            actors = [_place(wanted) for wanted in order["spread"]]
            say({"placed": [_found(actor, wanted) for actor, wanted in zip(actors, order["spread"], strict=True)]})
        elif "pass" in order:
            say({"passed": list(_pass(actors, order["pass"]))})
        elif "lend" in order:
            data = ray.put(b"\0" * order["lend"])
            lent = [actor.length.remote(data) for actor in actors]
            came = ray.wait(lent, num_returns=len(lent), timeout=LEND_LIMIT_S)[0]
            say({"lent": [call in came for call in lent]})
        elif "watch" in order:
            say({"watching": order["watch"]})
            watch(actors, order["watch"], say)
            say({"watched": order["watch"]})


def _place(address: str) -> Any:
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == address]
    where = NodeAffinitySchedulingStrategy(nodes[-1], soft=False)
    return _REMOTE.options(scheduling_strategy=where).remote()


def _found(actor: Any, wanted: str) -> dict[str, Any]:
    node_id, address, pid = ray.get(actor.whereabouts.remote())
    return {"address": wanted, "ran_on": address, "pid": pid, "node_id": node_id}


def _pass(actors: list[Any], size: int) -> Any:
    for source, maker in enumerate(actors):
        for target, reader in enumerate(actors):
            if source != target:
                # A fresh one: a store keeps a copy of what it has been sent.
                [made] = ray.get(maker.make.remote(size))
                began = time.monotonic()
                assert ray.get(reader.length.remote(made)) == size
                yield {"from": source, "to": target, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    main()
