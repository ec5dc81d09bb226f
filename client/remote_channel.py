"""A gRPC channel to a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc

from shardsgd.remote_endpoint import Endpoint

_MESSAGE_BYTES = 16 * 2**20
_SERVICE = "shardsgd.v1.TrainingService"

# AIP-194: only UNAVAILABLE is worth another try without being asked. These requests may be repeated: CreateJob carries a
# request_id, the others ask for a state of affairs. Streams are not here: they go on where they broke (remote_watch.py,
# remote_downloads.py, uploads.py), and gRPC 1.85's own retries of a stream of requests abort the whole process now and then.
# Nor is DeleteJob, whose second try finds nothing.
_REPEATABLE = ("CreateJob", "GetJob", "ListJobs", "PauseJob", "ResumeJob", "CancelJob", "ScaleJob", "GetServerInfo")
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": _SERVICE, "method": method} for method in _REPEATABLE],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

_OPTIONS: dict[str, Any] = {
    "grpc.max_receive_message_length": _MESSAGE_BYTES,
    "grpc.max_send_message_length": _MESSAGE_BYTES,
    "grpc.service_config": json.dumps(_SERVICE_CONFIG),
    # A connection that died without a word is noticed within 50 s, also while a watched job has nothing to tell. The service
    # allows a ping every 30 s, and none without a call.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.http2.max_pings_without_data": 0,
    # While gRPC waits before it connects again, calls fail at once: it may not wait for longer than we do (its own: 120 s).
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
    # In spite of its name, what a connection may take to come about.
    "grpc.min_reconnect_backoff_ms": 10_000,
}


def open_channel(endpoint: Endpoint) -> grpc.Channel:
    """A channel; it connects with its first call."""
    options = dict(_OPTIONS)
    if endpoint.is_here:
        options["grpc.enable_http_proxy"] = 0
    if not endpoint.tls:
        return grpc.insecure_channel(endpoint.address, options=list(options.items()))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_content(endpoint.tls_ca),
        private_key=_content(endpoint.tls_key),
        certificate_chain=_content(endpoint.tls_cert),
    )
    return grpc.secure_channel(endpoint.address, credentials, options=list(options.items()))


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
