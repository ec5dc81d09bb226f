"""Phrases that every format's errors share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from shardsgd.spec_problems import show

_LISTED = 20


def listing(names: Sequence[str]) -> str:
    """The names in quotes, cut to what a terminal can show: `"a", "b" and 7 more`."""
    shown = ", ".join(show(name) for name in names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown


def suggestion(name: str, known: Iterable[str]) -> str:
    """A `did you mean "x"? ` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {show(close[0])}? " if close else ""


def row_name(row: int, first_line: int | None = None) -> str:
    """How errors call a row: by its line where the file has lines, else by its number."""
    return f"row {row} (counting from 0)" if first_line is None else f"line {first_line + row}"
