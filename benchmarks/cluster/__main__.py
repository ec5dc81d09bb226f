"""The command: `python -m benchmarks.cluster try|sweep`, from the root of the repository; as root."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.cluster.errors import RigError, RigUnavailableError
from benchmarks.cluster.leftovers import sweep
from benchmarks.cluster.trial import trial

FAILED, UNAVAILABLE, INTERRUPTED = 1, 2, 130


def main() -> int:
    """Does what was asked for; the exit code."""
    arguments = parse()
    try:
        if arguments.command == "sweep":
            gone = sweep()
            for kind, found in gone._asdict().items():
                print(f"{kind}: {', '.join(map(str, found)) or 'none'}")
        else:
            trial(cut_s=arguments.cut, rate_mbit=arguments.rate, system_config=dict(arguments.setting))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except RigError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNAVAILABLE if isinstance(error, RigUnavailableError) else FAILED
    return 0


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sweep", help="takes away what killed rigs have left, and says what that was")
    attempt = commands.add_parser("try", help="builds a rig of three nodes, shows what Ray does there, takes it away")
    attempt.add_argument("--cut", type=float, default=20, metavar="SECONDS", help="how long a link is cut (default 20)")
    attempt.add_argument("--rate", type=float, default=1000, metavar="MBIT", help="of each link (default 1000)")
    attempt.add_argument(
        "--setting",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one of Ray's internal settings, such as health_check_timeout_ms=1000; may be repeated",
    )
    return parser.parse_args()


def _setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be NAME=VALUE, the value a number, true or false") from None


if __name__ == "__main__":
    sys.exit(main())
