"""How a worker and the coordinator of its node find each other: a socket without a file, and shared memory handed over on it.

The socket's address is in the abstract namespace, which every process of the machine can see: each end checks that the other
belongs to its user, and the worker proves with a token, which it has from the coordinator by way of Ray, that it is meant.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

from shardsgd.errors import JobError
from shardsgd.workers.exchange import WorkerId

_TOKEN_BYTES = 32
_HELLO = struct.Struct(f"<{_TOKEN_BYTES}sq")  # token, the worker's number
_WELCOME = struct.Struct("<q")  # a number that goes with the memory
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid: struct ucred of unix(7)
# A worker says hello as it knocks; nobody else is waited for.
_HELLO_S = 1.0


class Address(NamedTuple):
    """Where a worker finds its coordinator.

    Attributes:
        name: of the socket.
        token: that lets a worker in.
    """

    name: str
    token: bytes


class Listener:
    """The coordinator's end.

    Attributes:
        address: for workers.
    """

    def __init__(self, workers: int) -> None:
        """Listens for so many workers at a time."""
        self.address = Address(f"\0shardsgd-{secrets.token_hex(16)}", secrets.token_bytes(_TOKEN_BYTES))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.bind(self.address.name)
            self._socket.listen(workers)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """To be told, by a selector, when somebody knocks."""
        return self._socket.fileno()

    def close(self) -> None:
        """Lets nobody in any more; may be called twice."""
        self._socket.close()

    def accept(
        self, expected: Collection[WorkerId], memory: Sequence[int], number: int
    ) -> tuple[WorkerId, socket.socket] | None:
        """Lets a worker in that knocks; hangs up on anybody else.

        Args:
            expected: workers that may come.
            memory: file descriptors for it.
            number: that goes with them.
        """
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return None
        with suppress(OSError):
            worker = self._hello(connection)
            if worker is not None and worker in expected:
                socket.send_fds(connection, [_WELCOME.pack(number)], list(memory))
                connection.settimeout(None)
                return worker, connection
        connection.close()
        return None

    def _hello(self, connection: socket.socket) -> WorkerId | None:
        if _peer_uid(connection) != os.getuid():
            return None
        connection.settimeout(_HELLO_S)
        message = connection.recv(_HELLO.size)
        if len(message) != _HELLO.size:
            return None
        token, worker = _HELLO.unpack(message)
        return int(worker) if hmac.compare_digest(token, self.address.token) else None


def connect(address: Address, worker: WorkerId, descriptors: int) -> tuple[socket.socket, list[int], int]:
    """The worker's end: a connection, the memory's file descriptors (the caller's from now on), and the number with them.

    Raises:
        JobError: the socket belongs to another user, or does not let this worker in.
        OSError: there is no such socket.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(address.name)
        if _peer_uid(connection) != os.getuid():
            raise JobError("the coordinator's socket belongs to another user")
        connection.send(_HELLO.pack(address.token, worker))
        message, received, _, _ = socket.recv_fds(connection, _WELCOME.size, descriptors)
        if not message:
            raise JobError("the coordinator hung up")
    except BaseException:
        connection.close()
        raise
    for descriptor in received:
        os.set_inheritable(descriptor, False)
    return connection, received, _WELCOME.unpack(message)[0]


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])
