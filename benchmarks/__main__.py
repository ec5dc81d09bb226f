"""The command: `python -m benchmarks`, from the root of the repository."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType

from benchmarks.alternate import Options
from benchmarks.contender import ContenderError
from benchmarks.machine import setting
from benchmarks.memory import jax_import_peak
from benchmarks.processes import adopt_orphans, descendants, end
from benchmarks.progress import say
from benchmarks.report import report
from benchmarks.results import SectionResult, load, save
from benchmarks.sections import cold, exchange, scikit, step, sweep

Section = Callable[[Options], SectionResult]

SECTIONS: dict[str, Section] = {
    "step": lambda options: SectionResult(setting(options.rounds), step.measure(options)),
    "sklearn": lambda options: SectionResult(setting(options.rounds), scikit.measure(options)),
    "exchange": lambda options: SectionResult(setting(options.rounds), exchange.measure(options)),
    "cold": lambda options: SectionResult(setting(options.rounds), cold.measure(options)),
    "sweep": lambda options: SectionResult(
        setting(options.rounds), points=sweep.measure(options), jax_peak=jax_import_peak()
    ),
}
ROUNDS, QUICK_ROUNDS = 7, 2
TURN_SECONDS, QUICK_TURN_SECONDS = 1.5, 0.3
INTERRUPTED = 130


def main() -> int:
    """Measures the sections asked for; the exit code."""
    arguments = parse()
    quick = arguments.quick
    out: Path | None = arguments.out or (None if quick else Path(__file__).parent)
    sections = load(out / "results.json") if out else {}
    with scratch_folder() as scratch:
        options = Options(
            rounds=arguments.rounds or (QUICK_ROUNDS if quick else ROUNDS),
            turn_seconds=QUICK_TURN_SECONDS if quick else TURN_SECONDS,
            quick=quick,
            scratch=scratch,
        )
        try:
            for name in arguments.only:
                sections[name] = SECTIONS[name](options)
                if out:
                    out.mkdir(parents=True, exist_ok=True)
                    save(out / "results.json", sections)
                    (out / "RESULTS.md").write_text(report(sections))
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except ContenderError as error:
            say(f"error: {error}")
            return 1
    sys.stdout.write(report({name: sections[name] for name in arguments.only}))
    return 0


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(SECTIONS),
        metavar="NAME,…",
        help=f"sections to run, of {', '.join(SECTIONS)}; the others keep their earlier results",
    )
    parser.add_argument("--rounds", type=int, help=f"of every comparison (default {ROUNDS}, quick {QUICK_ROUNDS})")
    parser.add_argument(
        "--quick", action="store_true", help="short turns and few sizes: a smoke run, kept only with --out"
    )
    parser.add_argument("--out", type=Path, help="folder of RESULTS.md and results.json (default: this package's)")
    return parser.parse_args()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A private folder; in the end it is gone, and with it every process that was started meanwhile."""
    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    # Not TMPDIR: Ray puts Unix sockets below, whose paths the kernel cuts at 107 bytes.
    folder = Path(mkdtemp(prefix="sgdbench-", dir="/tmp"))
    try:
        yield folder
    finally:
        end(descendants(os.getpid()), grace_seconds=2.0)
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Starts the way out, on which no second signal is to leave anything behind."""
    del number, frame
    for handled in (signal.SIGINT, signal.SIGTERM):
        signal.signal(handled, signal.SIG_IGN)
    raise KeyboardInterrupt


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
