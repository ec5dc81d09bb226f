"""What Ray does on three nodes: where programs and objects go, what a killed raylet and a cut link look like from a driver."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cluster.conversation import LATE_S, Conversation
from benchmarks.cluster.network import Counters
from benchmarks.cluster.node import Node
from benchmarks.cluster.rig import Rig

PAYLOAD_BYTES = 10_000_000
_DRIVER, _VICTIM = 1, 2
_KILL_LIMIT_S = 120.0
_CUT_LIMIT_S = 120.0
_SETTLE_S = 2.0
_AFTERMATH_S = 10.0

Reports = list[dict[str, Any]]


def trial(*, cut_s: float, rate_mbit: float, system_config: Mapping[str, object]) -> None:
    """Builds a rig, tries everything, and prints what was seen.

    Args:
        cut_s: how long the link is cut.
        rate_mbit: of each link, in 10⁶ bits a second.
        system_config: Ray's internal settings.

    Raises:
        RigError: the rig, or Ray on it, failed.
    """
    with Rig(3, rate_mbit=rate_mbit) as rig:
        _say(
            f"nodes: {', '.join(node.address for node in rig.nodes)}; links of {rate_mbit:g} Mbit/s; {dict(system_config)}"
        )
        began = time.monotonic()
        address = rig.start_ray(system_config=dict(system_config))
        _say(f"Ray on all of them after {time.monotonic() - began:.1f} s, one CPU and an object store of 100 MiB each")
        driver = Conversation(rig.nodes[_DRIVER], address)
        _say(f"\nA driver inside node {rig.nodes[_DRIVER].address} joined as on {driver.joined}.")
        _spread(rig, driver)
        _pass(rig, driver)
        _without_address(rig, address)
        _kill(rig, driver)
        _come_back(rig, driver)
        _cut(rig, driver, cut_s)
        driver.end()


def _spread(rig: Rig, driver: Conversation) -> None:
    for placed in driver.ask({"spread": [node.address for node in rig.nodes]}, "placed"):
        _say(f"  actor for {placed['address']} runs on {placed['ran_on']}, process {placed['pid']}")


def _pass(rig: Rig, driver: Conversation) -> None:
    before = [node.link.counters() for node in rig.nodes]
    passed = driver.ask({"pass": PAYLOAD_BYTES}, "passed")
    carried = [node.link.counters() - was for node, was in zip(rig.nodes, before, strict=True)]
    _say(f"\n{PAYLOAD_BYTES / 1e6:g} MB from each actor to each other, so twice that to and from each node:")
    _say("  " + ", ".join(f"{one['from']}→{one['to']} {one['seconds'] * 1e3:.0f} ms" for one in passed))
    for node, counters in zip(rig.nodes, carried, strict=True):
        _say(f"  link of {node.address}: {_bytes(counters)}")


def _without_address(rig: Rig, address: str) -> None:
    node = rig.nodes[_DRIVER]
    other = Conversation(node, address, tells_its_node=False)
    other.ask({"spread": [node.address for node in rig.nodes]}, "placed")
    lent = other.ask({"lend": PAYLOAD_BYTES}, "lent")
    other.end()
    _say(f"\nA driver inside {node.address} that does not say so joined as on {other.joined}.")
    _say(f"  An object of its own was read by the actors of nodes 0, 1, 2: {_yes(lent)}")


def _kill(rig: Rig, driver: Conversation) -> None:
    victim = rig.nodes[_VICTIM]
    reports: Reports = []
    _watch(driver, reports)
    workers = _workers(victim)
    told = victim.kill_raylet()
    driver.gather(reports, lambda: not workers & set(victim.processes()), _KILL_LIMIT_S)
    gone = time.monotonic()

    def enough() -> bool:
        return _seen(reports, {"failed"}, told) == {"never", "pass", "call"} and _died(reports)

    complete = driver.gather(reports, enough, _KILL_LIMIT_S)
    driver.gather(reports, _after(_SETTLE_S), 2 * _SETTLE_S)
    _say(f"\nThe raylet of {victim.address} was killed. Seconds from then:")
    _tell(reports, told)
    if not complete:
        _say(f"  in {_KILL_LIMIT_S:g} s, not every kind of call failed, or the node was not said to be dead")
    _say(f"  {gone - told:8.3f}  none of the {len(workers)} workers that it had is left, to a tenth of a second")


def _come_back(rig: Rig, driver: Conversation) -> None:
    victim = rig.nodes[_VICTIM]
    victim.kill()
    began = time.monotonic()
    victim.start_ray(head=rig.nodes[0])
    _say(f"\nRay started again on {victim.address}, with nothing else told: {time.monotonic() - began:.1f} s")
    _spread(rig, driver)


def _cut(rig: Rig, driver: Conversation, cut_s: float) -> None:
    victim = rig.nodes[_VICTIM]
    reports: Reports = []
    _watch(driver, reports)
    cut = time.monotonic()
    victim.link.cut()
    driver.gather(reports, lambda: time.monotonic() - cut >= cut_s, 2 * cut_s)
    victim.link.restore()
    restored = time.monotonic()

    def enough() -> bool:
        answered = _seen(reports, {"late", "back"}, restored)
        return {"pass", "call"} <= answered or (_died(reports) and time.monotonic() - restored > _AFTERMATH_S)

    complete = driver.gather(reports, enough, _CUT_LIMIT_S)
    _say(f"\nThe link of {victim.address} was cut, and restored after {restored - cut:.1f} s. Seconds from the cut:")
    _tell(reports, cut)
    if not complete:
        _say(f"  {_CUT_LIMIT_S:g} s after it was restored, not every kind of call was answered")
    _say(f"  a raylet runs there now: {_yes([bool(victim.raylets())])}")


def _watch(driver: Conversation, reports: Reports) -> None:
    driver.ask({"watch": _VICTIM}, "watching")
    # Long enough for every kind of call to be on its way.
    driver.gather(reports, _after(_SETTLE_S), 2 * _SETTLE_S)
    reports.clear()


def _after(seconds: float) -> Callable[[], bool]:
    began = time.monotonic()
    return lambda: time.monotonic() - began >= seconds


def _tell(reports: Reports, start: float) -> None:
    for report in reports:
        when = f"{report['at'] - start:8.3f}"
        if "alive" in report:
            _say(f"  {when}  Ray says that node {report['node']} {'lives' if report['alive'] else 'is dead'}")
        elif "call" in report:
            what = f"{report['call']} to actor {report['actor']}, sent at {report['sent'] - start:.3f}"
            _say(f"  {when}  {what}: {report['outcome']} {report['error']}".rstrip())
    _say(f"  (not shown: answers within {LATE_S:g} s, and calls that fail like the one before)")


def _seen(reports: Reports, outcomes: set[str], since: float) -> set[str]:
    """The kinds of calls to the victim of which there is such an outcome."""
    to_victim = [report for report in reports if report.get("actor") == _VICTIM and report["at"] > since]
    return {report["call"] for report in to_victim if report["outcome"] in outcomes}


def _died(reports: Reports) -> bool:
    return any(report.get("alive") is False for report in reports)


def _workers(node: Node) -> set[int]:
    """Ray's worker processes; those with an actor are called by its class."""
    named = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in node.processes()}
    return {pid for pid, name in named.items() if name.startswith(b"ray::Resident")}


def _bytes(counters: Counters) -> str:
    return f"{counters.to_node:,} bytes to it, {counters.from_node:,} from it"


def _yes(values: list[bool]) -> str:
    return ", ".join("yes" if value else "no" for value in values)


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
