"""What the service tells a runner, read by a thread of its own while the main thread trains."""

from __future__ import annotations

import faulthandler
import os
import queue
import select
import socket
import threading
from dataclasses import dataclass, field

from shardsgd.coordinator.control import Control
from shardsgd.coordinator.service.runner_messages import Message, Run, Scale, Stop, decode

_CHUNK = 2**16
# How long a job may take to stop once there is nobody any more to report to; a checkpoint may be large.
_LEAVE_S = 120.0


@dataclass(frozen=True)
class Order:
    """A job to run, and the means to stop it."""

    run: Run
    control: Control = field(default_factory=Control)


class Inbox:
    """Takes the service's messages.

    Attributes:
        without_ray: set once Ray's keeper has died, so that no job can be run here any more.
    """

    def __init__(self, service: socket.socket, keeper: int) -> None:
        """Begins to read.

        Args:
            service: the connection to the service; once it is closed the runner leaves.
            keeper: a descriptor of the keeper's socket; once that is closed it leaves too.
        """
        self.without_ray = threading.Event()
        self._service = service
        self._keeper = keeper
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._leaving = False
        self._current: Order | None = None
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def next(self) -> Order | None:
        """Waits for the next job; None once it is time to leave."""
        return self._orders.get()

    def leave(self) -> None:
        """Stops the job that runs, if any, with a checkpoint, and takes no other. May be called by a signal's handler."""
        self._leaving = True
        if (order := self._current) is not None:
            order.control.stop()
        self._orders.put(None)

    def _read(self) -> None:
        try:
            self._read_all()
        finally:
            if self.without_ray.is_set() and self._current is None:
                # The main thread may be waiting for Ray.
                os._exit(0)
            # By a clock that needs no lock of Python's: whatever hangs, this process ends.
            faulthandler.dump_traceback_later(_LEAVE_S, exit=True, file=os.open(os.devnull, os.O_WRONLY))
            self.leave()

    def _read_all(self) -> None:
        """Until one of the sockets is closed."""
        ready, rest = select.poll(), b""
        ready.register(self._service, select.POLLIN)
        ready.register(self._keeper, 0)  # only for its hanging up
        while True:
            if any(number == self._keeper for number, _ in ready.poll()):
                self.without_ray.set()
                return
            try:
                received = self._service.recv(_CHUNK)
            except OSError:
                return
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                self._take(decode(line))

    def _take(self, message: Message) -> None:
        match message:
            case Run():
                self._current = order = Order(message)
                if message.scale is not None:
                    order.control.scale(message.scale)
                if self._leaving:
                    order.control.stop()
                self._orders.put(order)
            case Stop() if self._current is not None:
                self._current.control.stop()
            case Scale() if self._current is not None:
                self._current.control.scale(message.workers)
