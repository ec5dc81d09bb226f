"""What the harness says while it runs; results alone go to stdout."""

import sys


def say(text: str) -> None:
    """Prints a line on stderr."""
    print(text, file=sys.stderr, flush=True)
