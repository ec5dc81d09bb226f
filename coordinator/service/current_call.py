"""The call that is being answered: known to everything that runs for it, without being handed on from function to function."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from shardsgd.coordinator.service.access import Caller
from shardsgd.coordinator.service.service_log import ServiceLog


@dataclass(frozen=True)
class Call:
    """A call that is being answered.

    Attributes:
        request_id: that of the caller's `x-request-id`, if it is a reasonable one, else one of ours; the caller gets it back.
        method: full name, `/shardsgd.v1.TrainingService/GetJob`.
        peer: address that it came from.
        caller: who it came from; None: a method that asks for no credentials.
        log: for what it changes.
    """

    request_id: str
    method: str
    peer: str
    caller: Caller | None
    log: ServiceLog = field(repr=False)

    def write(self, event: str, **fields: object) -> None:
        """Writes a line about the call into the log."""
        owner = self.caller.owner if self.caller else None
        about = {"request_id": self.request_id, "owner": owner, "method": self.method, "peer": self.peer}
        self.log.line(event, **about, **fields)


current: ContextVar[Call] = ContextVar("current_call")


def current_call() -> Call:
    """The call that this code runs for. In threads too, if they were started by `asyncio.to_thread`.

    Raises:
        LookupError: it runs for none.
    """
    return current.get()


def current_caller() -> Caller:
    """Who the call comes from that this code runs for.

    Raises:
        LookupError: it runs for none, or for one that asks for no credentials.
    """
    caller = current.get().caller
    if caller is None:
        raise LookupError("this method is open to everybody")
    return caller


def audit(action: str, **fields: object) -> None:
    """Writes into the log that the call has changed something.

    Args:
        action: what it did: `create`, `pause`, ….
        fields: to what: `job_id="…"`.

    Raises:
        LookupError: this code runs for no call.
    """
    current.get().write("mutation", action=action, **fields)
