"""Who a call comes from, by what came with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardsgd.coordinator.service.access import LOCAL, OWNER, Caller, Tokens
from shardsgd.coordinator.service.problems import Reason, ServiceError

_HOW = 'send the metadata "authorization: Bearer TOKEN"'


@dataclass(frozen=True)
class Authentication:
    """How callers are told apart.

    Attributes:
        tokens: known ones; None: none are asked for.
        certificates: whether every connection had to show a certificate that the service trusts. Where there are no tokens, its
            common name is the owner. Such a caller is no administrator.
    """

    tokens: Tokens | None = None
    certificates: bool = False

    def caller(self, metadata: Iterable[tuple[str, str | bytes]], common_names: Sequence[bytes]) -> Caller:
        """Who calls.

        Args:
            metadata: that came with the call.
            common_names: of the certificate that the caller showed; none: there is none.

        Raises:
            ServiceError: UNAUTHENTICATED.
        """
        if self.tokens is not None:
            caller = self.tokens.caller(_token(metadata))
            if caller is None:
                raise ServiceError(Reason.UNAUTHENTICATED, "the token is not known: it is wrong, or was withdrawn")
            return caller
        return _named_by(common_names) if self.certificates else LOCAL


def secrets_in(metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    """What came with a call and must not get into a log."""
    return [word for value in _credentials(metadata) for word in value.split() if word.lower() != "bearer"]


def _credentials(metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    return [value for key, value in metadata if key == "authorization" and isinstance(value, str)]


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    match [value.split() for value in _credentials(metadata)]:
        case [[scheme, token]] if scheme.lower() == "bearer":
            return token
        case []:
            raise ServiceError(Reason.UNAUTHENTICATED, f"no token: {_HOW}")
        case _:
            raise ServiceError(Reason.UNAUTHENTICATED, f"not one token: {_HOW}, once")


def _named_by(common_names: Sequence[bytes]) -> Caller:
    if len(common_names) != 1:
        raise ServiceError(
            Reason.UNAUTHENTICATED, "the client's certificate must have one common name: it is the owner"
        )
    # Names outside ASCII could look like somebody else's.
    name = common_names[0].decode("ascii", "replace")
    if not OWNER.fullmatch(name):
        raise ServiceError(
            Reason.UNAUTHENTICATED,
            "the common name of the client's certificate is the owner: accepted: at most 64 letters, digits and . _ @ -",
        )
    return Caller(name, administrator=False)
