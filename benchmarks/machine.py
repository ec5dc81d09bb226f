"""The machine and the versions that a measurement belongs to."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("numpy", "jax", "jaxlib", "ray", "torch", "scikit-learn")


def setting(rounds: int) -> dict[str, str]:
    """Machine, versions, date and rounds, by name, as texts."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "CPU": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "rounds": str(rounds),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
