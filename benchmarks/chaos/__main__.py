"""The command: `python -m benchmarks.chaos`, from the root of the repository."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.__main__ import INTERRUPTED, scratch_folder
from benchmarks.chaos import coordinator, faults, kills, price, walk
from benchmarks.chaos.options import Options
from benchmarks.chaos.records import PartResult, load, save
from benchmarks.chaos.report import report, wrong
from benchmarks.chaos.runs import ChaosError
from benchmarks.contender import ContenderError
from benchmarks.machine import setting
from benchmarks.progress import say

MEASURES = {
    "faults": faults.measure,
    "kills": kills.measure,
    "coordinator": coordinator.measure,
    "walk": walk.measure,
    "price": price.measure,
}
RESULTS, REPORT = "chaos.json", "CHAOS.md"
FAULTS, KILLS = 1000, 100


def main() -> int:
    """Measures the parts asked for; 1 if anything was not as it must be."""
    arguments = parse()
    out: Path | None = arguments.out or (None if arguments.quick else Path(__file__).parents[1])
    parts = load(out / RESULTS) if out else {}
    with scratch_folder() as scratch:
        options = Options(
            quick=arguments.quick,
            faults=arguments.faults,
            kills=arguments.kills,
            rounds=arguments.rounds,
            seed=arguments.seed,
            against=arguments.against,
            scratch=scratch,
        )
        try:
            for name in arguments.only:
                say(f"{name}:")
                parts[name] = PartResult(_setting(name, options), [])
                for run in MEASURES[name](options):
                    parts[name].runs.append(run)
                    if out:
                        out.mkdir(parents=True, exist_ok=True)
                        save(out / RESULTS, parts)
                        (out / REPORT).write_text(report(parts))
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except (ChaosError, ContenderError) as error:
            say(f"error: {error}")
            return 1
    asked = {name: parts[name] for name in arguments.only}
    sys.stdout.write(report(asked))
    for line in wrong(asked):
        say(f"WRONG: {line}")
    return 1 if wrong(asked) else 0


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        metavar="NAME,…",
        help=f"parts to run, of {', '.join(MEASURES)}; the others keep their earlier results (default: all, price only "
        "with --against)",
    )
    parser.add_argument("--faults", type=int, default=FAULTS, help=f"in each run of `faults` (default {FAULTS})")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"of the coordinator (default {KILLS})")
    parser.add_argument("--rounds", type=int, help="of `kills` and `price` (default 3 and 80)")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="the checkout that `price` compares this one with")
    parser.add_argument(
        "--quick", action="store_true", help="small versions of about a minute each, kept only with --out"
    )
    parser.add_argument("--out", type=Path, help=f"folder of {REPORT} and {RESULTS} (default: benchmarks)")
    arguments = parser.parse_args()
    if arguments.only is None:
        arguments.only = [name for name in MEASURES if name != "price" or arguments.against]
    if "price" in arguments.only and not arguments.against:
        parser.error("price needs --against DIR, a checkout to compare this one with")
    return arguments


def _setting(name: str, options: Options) -> dict[str, str]:
    """Machine, versions, date, and the parameters that count for a part."""
    found = {key: value for key, value in setting(0).items() if key not in ("rounds", "torch", "scikit-learn")}
    found["commit"] = price.commit(price.here())
    if name == "price" and options.against:
        found["against"] = price.commit(options.against)
    if name != "walk":
        found["seed"] = str(options.seed)
    return found | ({"quick": "yes"} if options.quick else {})


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in MEASURES]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
