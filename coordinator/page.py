"""A page that needs nothing else, neither network nor scripts: the frame of every report."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from shardsgd.coordinator.report_style import STYLE

# Says to the browser what is true anyway, so that even a flaw in the escaping could load or run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, sections: Iterable[str]) -> bytes:
    """The page's file.

    Args:
        title: in words.
        sections: HTML, in order.
    """
    body = "\n".join(sections)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )
    # A reason may quote a file name that is not valid Unicode.
    return text.encode("utf-8", errors="replace")


def section(title: str, content: str) -> str:
    """A part of the page with its heading; `content` is HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"
