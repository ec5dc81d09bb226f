"""The keeper of Ray, as the service sees it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any, Self

from shardsgd.coordinator.service.child import Child
from shardsgd.errors import JobError

# How long Ray may take to end.
_LEAVE_S = 30.0


class Keeper:
    """The process that keeps Ray.

    Attributes:
        pid: of the process.
        connection: the socket that it lives as long as.
        address: of its Ray.
        settings: environment variables for those who join it.
    """

    def __init__(self, child: Child, connection: socket.socket, address: str, settings: Mapping[str, str]) -> None:
        self.pid = child.pid
        self._child = child
        self.connection = connection
        self.address = address
        self.settings = settings

    @classmethod
    async def start(cls, object_store_bytes: int | None) -> Self:
        """Starts Ray.

        Raises:
            JobError: it could not be started; why, in words.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                number = theirs.fileno()
                child = await Child.start(
                    "shardsgd.coordinator.service.ray_keeper",
                    str(number),
                    str(object_store_bytes or 0),
                    descriptors=[number],
                )
        except OSError as error:
            ours.close()
            raise JobError(f"Ray could not be started: {error}") from error
        try:
            said = await _line(ours)
            if "address" not in said:
                raise JobError(said.get("error") or f"Ray could not be started: {await child.ended()}")
        except BaseException:
            ours.close()
            raise
        return cls(child, ours, said["address"], said["settings"])

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as this process has noticed."""
        return self._child.alive

    async def ended(self) -> str:
        """Waits for its end, and says why it ended, in words."""
        return await self._child.ended()

    async def close(self) -> None:
        """Ends Ray, once no runner needs it any more."""
        self.connection.close()
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._child.ended()
        except TimeoutError:
            self._child.kill()
            await self._child.ended()


async def _line(connection: socket.socket) -> dict[str, Any]:
    """A line of JSON from a socket that does not block; empty if it is closed first."""
    received, loop = b"", asyncio.get_running_loop()
    while not received.endswith(b"\n"):
        more = await loop.sock_recv(connection, 2**16)
        if not more:
            return {}
        received += more
    said: dict[str, Any] = json.loads(received)
    return said
