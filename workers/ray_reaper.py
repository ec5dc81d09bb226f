"""Ends what is left of a private Ray: as a function at a run's end, as a script when the run's process dies, however it does.

The script (`python -I -S ray_reaper.py FOLDER`) sleeps beside every run that has started a Ray of its own, so it imports only
the cheapest of the standard library and nothing of shardsgd. It waits for the lock that the run holds on a file in Ray's
folder. The kernel gives up a POSIX lock with the process that took it, and forked children do not inherit it: a caller's own
children, which may live on, cannot hide the death, as they would by inheriting a pipe.

A process belongs to a Ray if it has the name of that Ray's folder both in its environment, where only what Ray starts has it,
and in its command line or among its open files. So a debugger, a `tail -f` of a log or a child that the caller has forked does
not belong. Where there is no /proc (macOS), no process is found and only the folder is removed.
"""

import fcntl
import os
import signal
import sys
import time

FOLDER_VARIABLE = "SHARDSGD_RAY_FOLDER"
_LOCK = "lock"
_LIMIT_S = 10.0
_PAUSE_S = 0.02
# Longer than a process takes from fork, when its environment is still that of the dead run, to exec.
_SETTLE_S = 0.2


def lock(folder: str, *, wait: bool) -> int:
    """Takes the lock of a Ray's folder, for as long as the returned descriptor is open.

    POSIX gives it up too when the same process closes any other descriptor of the file.

    Args:
        folder: of the Ray.
        wait: for the process that holds it.

    Raises:
        BlockingIOError: a process holds it, and `wait` is false.
        OSError: there is no such folder.
    """
    handle = os.open(f"{folder}/{_LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


def clean(folder: str) -> None:
    """Kills the processes of a Ray until none is left, and removes its folder.

    Gives up after some seconds: a process in an uninterruptible system call cannot be killed.

    Args:
        folder: absolute, as Ray was given it.
    """
    # Imported here: it would double what the script waits in, time and memory.
    import shutil  # noqa: PLC0415

    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        left = [pid for pid in _processes() if pid != os.getpid() and _belongs(pid, folder)]
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not left:
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.lexists(folder):
                return
        time.sleep(_PAUSE_S)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []


def _belongs(pid: int, folder: str) -> bool:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return False
        if f"{FOLDER_VARIABLE}={folder}".encode() not in _read(pid, "environ").split(b"\0"):
            return False
        inside = f"{folder}/"
        files = (_target(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd"))
        return inside.encode() in _read(pid, "cmdline") or any(file.startswith(inside) for file in files)
    except OSError:
        return False  # it is gone


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""  # closed in the meantime


def _main(folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        lock(folder, wait=True)
    except FileNotFoundError:
        return  # the run was over first
    clean(folder)
    time.sleep(_SETTLE_S)
    clean(folder)


if __name__ == "__main__":
    _main(sys.argv[1])
