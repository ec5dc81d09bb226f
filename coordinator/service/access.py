"""Who may call: owners, their roles, and the file of their tokens.

A token is 256 random bits. Only its SHA-256 is in the file: such a token cannot be guessed from its hash, so a slow hash, made
for passwords, would only slow every call.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shardsgd.errors import InputError

Role = Literal["user", "administrator"]

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile("[0-9a-f]{64}")
_PREFIX = "shardsgd_"
# Nobody's token is longer; a caller's would only cost time.
_LONGEST = 256
# Clocks of file systems tick every few milliseconds: a file may change after it was read, within the tick, and look the same.
_TICK_NS = 1_000_000_000


@dataclass(frozen=True)
class Caller:
    """Who a call comes from.

    Attributes:
        owner: whose jobs and datasets are theirs.
        administrator: whether they may see and change everybody's.
    """

    owner: str
    administrator: bool

    def may_use(self, owner: str) -> bool:
        """Whether they may see and change what belongs to `owner`."""
        return self.administrator or owner == self.owner


# Whoever reaches a service that asks for neither token nor certificate.
LOCAL = Caller("local", administrator=True)


def make_token() -> tuple[str, str]:
    """A new token, and its hash for the token file."""
    token = _PREFIX + secrets.token_urlsafe(32)
    return token, hash_of(token)


def hash_of(token: str) -> str:
    """What the token file says of a token: SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def token_line(owner: str, role: Role, token_hash: str) -> str:
    """A line of a token file.

    Raises:
        InputError: it would not be read again.
    """
    line = f"{owner} {role} {token_hash}"
    _, problems = _parse(line)
    if problems or not line.strip() or owner.startswith("#"):
        raise InputError(f"token of {owner!r}: {_LINE}")
    return line


class Tokens:
    """A token file, read again when it changes: a line that is taken out stops working with the next call.

    One entry a line: `OWNER ROLE SHA256HEX`, of which ROLE is user or administrator; after `#` comes a comment. An owner may
    have many tokens. For one thread at a time.
    """

    def __init__(self, path: Path, log: Callable[[str], None] | None = None) -> None:
        """Reads the file.

        Args:
            path: of the file; replace it by renaming, so that it is never read half-written.
            log: told in words of what is wrong with the file later; None: nobody is. Nobody is let in by a line that is wrong.

        Raises:
            InputError: it cannot be read, anybody may write to it, or lines are wrong (all are named) or missing.
        """
        self._path = path
        self._log = log
        self._callers: dict[str, Caller] = {}
        self._seen: tuple[int, ...] | None = None
        self._complaint = ""
        problems = self._read()
        if not problems and not self._callers:
            problems = [f"no entry; {_LINE}"]
        if problems:
            raise InputError(f"{path}: " + "\n  ".join(problems))

    def caller(self, token: str) -> Caller | None:
        """Whose token this is; None: nobody's."""
        self._refresh()
        if len(token) > _LONGEST:
            return None
        # Bytes of equal length; every entry is compared, whether or not one was found, in constant time each.
        offered = hash_of(token).encode()
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known.encode(), offered):
                found = caller
        return found

    def _refresh(self) -> None:
        try:
            if self._seen == _look(self._path.stat()):
                return
        except OSError:
            pass  # reading it says why
        complaint = "; ".join(self._read())
        if self._log and complaint and complaint != self._complaint:
            self._log(f"{self._path}: {complaint}")
        self._complaint = complaint

    def _read(self) -> list[str]:
        """Takes over what the file says now, and returns what is wrong with it. A file that cannot be read lets nobody in."""
        self._callers, self._seen = {}, None
        try:
            with self._path.open("rb") as file:
                info = os.fstat(file.fileno())
                text = file.read().decode()
        except OSError as error:
            return [error.strerror or str(error)]
        except UnicodeDecodeError:
            return ["not a text in UTF-8"]
        if info.st_mode & stat.S_IWOTH:
            return ["everybody may write to it, and so let themselves in: chmod o-w"]
        if time.time_ns() - info.st_ctime_ns > _TICK_NS:
            self._seen = _look(info)
        self._callers, problems = _parse(text)
        return problems


_LINE = "accepted: OWNER ROLE SHA256HEX, where ROLE is user or administrator, and OWNER of letters, digits and . _ @ -"


def _parse(text: str) -> tuple[dict[str, Caller], list[str]]:
    """Callers by the hash of their token, and what is wrong, by line. No problem repeats a line: it might hold a token."""
    callers: dict[str, Caller] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        match line.partition("#")[0].split():
            case []:
                pass
            case [owner, "user" | "administrator" as role, token_hash] if OWNER.fullmatch(owner) and _HASH.fullmatch(
                token_hash
            ):
                caller = Caller(owner, role == "administrator")
                if callers.setdefault(token_hash, caller) != caller:
                    problems.append(f"line {number}: this token has another owner or role further up")
            case _:
                problems.append(f"line {number}: {_LINE}")
    return callers, problems


def _look(info: os.stat_result) -> tuple[int, ...]:
    """Another one if the file may have changed."""
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
