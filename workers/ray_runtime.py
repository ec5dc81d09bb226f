"""Starting Ray, quietly and without leaving anything behind, or joining the Ray that already runs."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from shardsgd.errors import JobError
from shardsgd.workers.environment import WORKER_ENVIRONMENT
from shardsgd.workers.ray_folder import private_folder
from shardsgd.workers.ray_reaper import FOLDER_VARIABLE

_MIN_OBJECT_STORE_BYTES = 80 * 2**20  # Ray refuses less than 75 MiB
# Of a shared Ray: more than there will be workers at a time, those included that are idle.
_NOMINAL_CPUS = 10_000


class RayAddress(NamedTuple):
    """What another process of this user needs to join a Ray of this machine.

    Attributes:
        address: of its control service.
        settings: environment variables, to be set before ray is imported. They hold the token that lets a process in, so they
            belong in no command line and no file.
    """

    address: str
    settings: Mapping[str, str]


@contextmanager
def ray_runtime(*, cpus: int, object_store_bytes: int) -> Iterator[Mapping[str, str]]:
    """Ray for the length of a `with` block.

    If this process is already connected to a Ray, that one is used and left running. Otherwise one is started on this machine:
    loopback only, authenticated by a token that exists nowhere but in these processes' memory, no dashboard, no usage report,
    no log forwarding; and when the block ends, or this process, be it by kill -9, its processes and its folder are gone.

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
    with _started(_settings(), cpus, object_store_bytes):
        yield {}


@contextmanager
def shared_ray(*, object_store_bytes: int | None) -> Iterator[RayAddress]:
    """A Ray as `ray_runtime` starts it, for other processes to join; its workers need no environment.

    It never refuses or delays a worker for want of CPUs: those who join decide among themselves how many compute at a time.

    Args:
        object_store_bytes: that shards, parameters and gradient sums of all jobs will need at a time; None: Ray's default,
            three tenths of the machine's memory.

    Raises:
        JobError: Ray could not be started.
    """
    # Otherwise Ray would start as many processes as there are CPUs, and wait for actors to put into them.
    settings = _settings() | {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
    with _started(settings, _NOMINAL_CPUS, object_store_bytes):
        yield RayAddress(ray.get_runtime_context().gcs_address, settings)


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Joins a Ray of this machine, in whose settings this process was started, for the length of a `with` block.

    The workers that this process has started end with the block, or with the process.

    Args:
        address: of `shared_ray`.

    Raises:
        JobError: it could not be joined.
    """
    with ExitStack() as cleanup:
        cleanup.enter_context(_silent_listener())
        cleanup.callback(ray.shutdown)
        _init(address=address)
        yield


def _settings() -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # The name misleads: "0" keeps every one of Ray's servers on 127.0.0.1, which `_node_ip_address` does not.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Errors are collected with each answer; Ray would print those of answers that nobody waits for any more.
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    }


@contextmanager
def _started(settings: Mapping[str, str], cpus: int, object_store_bytes: int | None) -> Iterator[None]:
    """A Ray of this process's own."""
    with ExitStack() as cleanup:
        try:
            # First: the reaper has no need to know Ray's token.
            folder = cleanup.enter_context(private_folder())
        except OSError as error:
            raise JobError(f"Ray could not be started: {error}") from error
        cleanup.enter_context(_ray_settings(settings))
        cleanup.enter_context(_silent_listener())
        cleanup.callback(ray.shutdown)
        inherited = {
            # Workers are forked from the raylet and inherit its environment: a runtime_env would cost a second of start-up.
            **WORKER_ENVIRONMENT,
            FOLDER_VARIABLE: str(folder),
            # Ray's agents overwrite their environment with their process title otherwise.
            "SPT_NOENV": "1",
        }
        store = None if object_store_bytes is None else max(object_store_bytes, _MIN_OBJECT_STORE_BYTES)
        with _environment(inherited), warnings.catch_warnings():
            # Ray forks to start its processes; jax, where the caller has used it already, warns of threads that may hold locks.
            # The children exec at once.
            warnings.filterwarnings("ignore", "os.fork\\(\\) was called", RuntimeWarning)
            _init(
                address="local",
                num_cpus=cpus,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=store,
                _temp_dir=str(folder),
            )
        yield


def _init(**options: Any) -> None:
    try:
        with _sigterm_kept():
            ray.init(log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # whatever it is: Ray raises RuntimeError, ValueError, OSError and its own
        raise JobError(f"Ray could not be started: {error}") from error


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
