"""The service, put together: from its options to a process that answers, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shardsgd.coordinator.service.access import Tokens
from shardsgd.coordinator.service.addresses import check_address
from shardsgd.coordinator.service.authentication import Authentication
from shardsgd.coordinator.service.credentials import server_credentials
from shardsgd.coordinator.service.data_handlers import DataHandlers, run_spec
from shardsgd.coordinator.service.datasets import DatasetFiles
from shardsgd.coordinator.service.dispatcher import Dispatcher
from shardsgd.coordinator.service.files import sweep_folders
from shardsgd.coordinator.service.interceptor import CallInterceptor
from shardsgd.coordinator.service.job_handlers import JobHandlers
from shardsgd.coordinator.service.limits import Limits
from shardsgd.coordinator.service.roots import checked_roots
from shardsgd.coordinator.service.runners import Runners
from shardsgd.coordinator.service.service_log import ServiceLog
from shardsgd.coordinator.service.servicer import SERVICE, training_servicer
from shardsgd.coordinator.service.store import JobStore
from shardsgd.coordinator.service.watch import Feed
from shardsgd.errors import InputError
from shardsgd.protos import training_pb2_grpc as pb_grpc

# Chunks of datasets and parameters have 1 MiB; no spec comes near.
_LONGEST_MESSAGE = 4 * 2**20
# Clients ping every 30 s; more often than this is an attack.
_PINGS = [("grpc.http2.min_ping_interval_without_data_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1)]
_KEEPALIVE = [("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 20_000)]
_MOST_CALLS = 4_000
_ANY_SIZE = 2**62
# Uploaded datasets that no open job uses are kept so long.
_UNUSED_SECONDS = 24 * 3600.0
_SWEEP_SECONDS = 600.0


@dataclass(frozen=True)
class ServeOptions:
    """What a service is started with.

    Attributes:
        address: HOST:PORT to listen on; port 0: any that is free.
        store: folder of the records, datasets and files of jobs.
        capacity: workers that may compute at a time.
        warm: workers that are made ready before the first job comes.
        roots: folders that jobs may read data from.
        token_file: of tokens; None: whoever can connect may do everything.
        tls_cert: PEM file of the certificate chain; None: plain text.
        tls_key: PEM file of its private key.
        tls_client_ca: PEM file of the authorities whose clients may come; None: no certificate is asked for.
        insecure: plain text also where others can listen.
        reflection: tell clients what calls there are.
        limits: of one owner.
        object_store_bytes: of Ray's; None: Ray's own choice.
        grace_s: how long calls may go on once the service is told to stop, in seconds.
    """

    address: str
    store: Path
    capacity: int
    warm: int = 0
    roots: Sequence[Path] = ()
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure: bool = False
    reflection: bool = False
    limits: Limits = field(default_factory=Limits)
    object_store_bytes: int | None = None
    grace_s: float = 5.0


async def serve(options: ServeOptions, listening: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        options: as given.
        listening: told the address, once jobs are accepted and run.

    Raises:
        InputError: an option is wrong; nothing was started.
        JobError: Ray could not be started.
    """
    host, _, port = options.address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--address {options.address}: expected HOST:PORT, such as 127.0.0.1:50051")
    log = ServiceLog(sys.stderr)

    def say(text: str) -> None:
        log.line("service", message=text)

    credentials = server_credentials(options.tls_cert, options.tls_key, options.tls_client_ca)
    tokens = Tokens(options.token_file, say) if options.token_file else None
    authentication = Authentication(tokens, certificates=options.tls_client_ca is not None)
    check_address(
        host.strip("[]"),
        tls=credentials is not None,
        authenticated=authentication.tokens is not None or authentication.certificates,
        insecure=options.insecure,
    )
    roots = checked_roots(options.roots)

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    async with AsyncExitStack() as stack:
        # Runners have another current folder.
        root = options.store.absolute()
        store = JobStore(root)
        stack.callback(store.close)
        datasets = DatasetFiles(root / "datasets", options.limits.upload_bytes or _ANY_SIZE)
        folder = root / "jobs"
        folder.mkdir(mode=0o700, exist_ok=True)
        sweep_folders(folder, lambda name: store.get(name) is not None)
        private = [root, root.resolve()]
        feed = Feed(store)
        runners = Runners(
            capacity=options.capacity, object_store_bytes=options.object_store_bytes, log=say, warm=options.warm
        )
        dispatcher = Dispatcher(
            store,
            runners,
            feed,
            folder,
            partial(run_spec, store=store, datasets=datasets),
            capacity=options.capacity,
            per_owner=options.limits.workers,
            private=private,
            log=say,
        )
        jobs = JobHandlers(store, dispatcher, feed, options.limits, roots, stopping.is_set)
        guard = CallInterceptor(authentication, options.limits, log, private=private)
        condition = health.aio.HealthServicer()
        data = DataHandlers(jobs, datasets, time.monotonic())
        server = _grpc_server(guard, data, condition, reflects=options.reflection)
        await _set(condition, health_pb2.HealthCheckResponse.NOT_SERVING)
        bound = _bind(server, options.address, credentials)
        await server.start()
        stack.push_async_callback(server.stop, None)

        stack.push_async_callback(runners.close, options.grace_s)
        await runners.start()
        await dispatcher.start()
        sweeping = asyncio.create_task(_sweep(store, datasets))
        stack.callback(sweeping.cancel)
        await _set(condition, health_pb2.HealthCheckResponse.SERVING)
        listening(f"{host}:{bound}")

        await stopping.wait()
        say("stopping: jobs are checkpointed, and go on when the service is started again")
        await condition.enter_graceful_shutdown()
        feed.close()
        await dispatcher.drain()
        await server.stop(options.grace_s)


def _grpc_server(
    guard: grpc.aio.ServerInterceptor, data: DataHandlers, condition: health.aio.HealthServicer, *, reflects: bool
) -> grpc.aio.Server:
    server = grpc.aio.server(
        interceptors=[guard],
        options=[
            # Otherwise two services could silently share one port.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
            ("grpc.max_send_message_length", _LONGEST_MESSAGE),
            *_PINGS,
            *_KEEPALIVE,
        ],
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    add_to: Any = pb_grpc.add_TrainingServiceServicer_to_server
    add_to(training_servicer(data), server)
    health_pb2_grpc.add_HealthServicer_to_server(condition, server)
    if reflects:
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    return server


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise InputError(
            f"--address {address}: cannot be listened on; another service may, or this is no address of ours"
        )
    return port


async def _set(condition: health.aio.HealthServicer, status: int) -> None:
    for name in ("", SERVICE):
        await condition.set(name, status)


async def _sweep(store: JobStore, datasets: DatasetFiles) -> None:
    """Removes datasets that nobody uses any more, now and then."""
    while True:
        await asyncio.to_thread(store.forget_datasets, time.time() - _UNUSED_SECONDS)
        await asyncio.to_thread(datasets.sweep, store.is_linked)
        await asyncio.sleep(_SWEEP_SECONDS)
