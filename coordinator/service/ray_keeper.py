"""The process that keeps the service's Ray: `python -P -m shardsgd.coordinator.service.ray_keeper SOCKET STORE_BYTES`.

It starts Ray, says over the socket, in one line of JSON, how to join it, and ends it once nobody holds the other end any more:
neither the service nor a runner, which so has Ray for as long as it takes to stop its job. They in turn see by the socket when
this process has died. If it is killed, the reaper in `workers/` ends what it has started.
"""

from __future__ import annotations

import json
import signal
import socket
import sys

import setproctitle

from shardsgd.errors import JobError
from shardsgd.workers.ray_runtime import shared_ray

_TITLE = "shardsgd-ray"


def main() -> None:
    """Keeps Ray."""
    # Whoever ends the service with these, a terminal or an init system, would end Ray before the jobs could stop. A handler,
    # because Ray's processes would inherit that they are ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        connection.set_inheritable(False)
        # Before Ray's processes inherit the variables.
        setproctitle.setproctitle(_TITLE)
        try:
            with shared_ray(object_store_bytes=int(sys.argv[2]) or None) as ray:
                _say(connection, {"address": ray.address, "settings": dict(ray.settings)})
                connection.recv(1)
        except JobError as error:
            _say(connection, {"error": str(error)})


def _say(connection: socket.socket, words: dict[str, object]) -> None:
    connection.sendall(json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    main()
