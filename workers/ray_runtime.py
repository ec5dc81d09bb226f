"""Starting Ray for one run, quietly and without leaving anything behind, or joining the Ray that already runs."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from shardsgd.errors import JobError
from shardsgd.workers.environment import WORKER_ENVIRONMENT

_MIN_OBJECT_STORE_BYTES = 80 * 2**20  # Ray refuses less than 75 MiB
_FOLDER_PREFIX = "shardsgd-ray-"
_REMOVALS, _REMOVAL_PAUSE_S = 20, 0.1


@contextmanager
def ray_runtime(*, cpus: int, object_store_bytes: int) -> Iterator[Mapping[str, str]]:
    """Ray for the length of a `with` block.

    If this process is already connected to a Ray, that one is used and left running. Otherwise one is started on this machine:
    loopback only, authenticated by a token that exists nowhere but in these processes' memory, no dashboard, no usage report,
    no log forwarding; and when the block ends, its processes and its folder are gone.

    Args:
        cpus: that workers will ask for; may exceed the machine's.
        object_store_bytes: that shards, parameters and gradient sums will need at a time.

    Raises:
        JobError: Ray could not be started.

    Yields:
        The environment that workers must still be given, because their parent process does not have it.
    """
    if ray.is_initialized():
        yield WORKER_ENVIRONMENT
        return
    with ExitStack() as cleanup:
        settings = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            # The name misleads: "0" keeps every one of Ray's servers on 127.0.0.1, which `_node_ip_address` does not.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Errors are collected with each answer; Ray would print those of answers that nobody waits for any more.
            "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        }
        cleanup.enter_context(_ray_settings(settings))
        cleanup.enter_context(_silent_listener())
        folder = cleanup.enter_context(_private_folder())
        cleanup.callback(ray.shutdown)
        # Workers are forked from the raylet and inherit its environment: a runtime_env would cost a second of start-up.
        with _environment(WORKER_ENVIRONMENT), _sigterm_kept(), warnings.catch_warnings():
            # Ray forks to start its processes; jax, where the caller has used it already, warns of threads that may hold locks.
            # The children exec at once.
            warnings.filterwarnings("ignore", "os.fork\\(\\) was called", RuntimeWarning)
            try:
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=0,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    logging_level=logging.ERROR,
                    object_store_memory=max(object_store_bytes, _MIN_OBJECT_STORE_BYTES),
                    _temp_dir=str(folder),
                )
            except Exception as error:  # whatever it is: Ray raises RuntimeError, ValueError, OSError and its own
                raise JobError(f"Ray could not be started: {error}") from error
        yield {}


@contextmanager
def _ray_settings(values: Mapping[str, str]) -> Iterator[None]:
    """Ray's own environment variables for the length of a block, and what it keeps of them from when it was imported."""

    def read_again() -> None:
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment(values):
            read_again()
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        read_again()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undoes what ray.init does to SIGTERM: a stack dump and an exit without cleaning up."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _silent_listener() -> Iterator[None]:
    """Keeps the driver's listener from printing on stdout, where `--json` writes.

    It prints every worker's death, whatever `log_to_driver` says; an exchange reports the same with its reason.
    """
    before = ray_worker.print_to_stdstream
    ray_worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the length of a block; Ray takes these settings in no other way."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs, readable by this user only, for the length of a block.

    Folders of runs that were killed are swept. A lock on the folder itself tells them from those in use, also where runs cannot
    see each other's processes.
    """
    # Ray puts Unix sockets below it, whose paths the kernel cuts at 107 bytes: a long TMPDIR would not do.
    root = Path("/tmp")  # noqa: S108  (mkdtemp makes a folder of our own in it)
    for stale in root.glob(f"{_FOLDER_PREFIX}*"):
        _sweep(stale)
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-", dir=root))
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield folder
    finally:
        # Ray's last processes may still write a log line while the folder goes.
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(_REMOVAL_PAUSE_S)
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Removes a folder whose run is gone; another run may be sweeping it too."""
    owner = folder.name.removeprefix(_FOLDER_PREFIX).split("-")[0]
    with suppress(OSError):
        if Path(f"/proc/{owner}").exists() or folder.stat().st_uid != os.getuid():
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
