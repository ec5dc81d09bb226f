"""How much memory processes use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.processes import command_line, descendants
from benchmarks.results import Memory

_WORKER_TITLE = "shardsgd-worker"


def memory(pid: int) -> Memory:
    """Of a process, now and at its peak."""
    return _memory(Path(f"/proc/{pid}/status").read_text())


def worker_memory(pid: int) -> list[Memory]:
    """Of each of our workers below a process."""
    return [memory(process.pid) for process in descendants(pid) if _WORKER_TITLE in command_line(process.pid)]


def jax_import_peak() -> int:
    """VmHWM of a process that has imported jax and done nothing else, in bytes."""
    script = "import jax; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return _memory(done.stdout).peak


def _memory(status: str) -> Memory:
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    peak, *resident = (1024 * int(fields[name].split()[0]) for name in ("VmHWM", "RssAnon", "RssFile", "RssShmem"))
    return Memory(peak, *resident)
