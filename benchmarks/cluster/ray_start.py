"""How Ray is started on a node of a rig: by its own command, with what a cluster in production would be given."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from shardsgd.workers.environment import WORKER_ENVIRONMENT

# Every node has all ports to itself, so they can be fixed and told apart in a capture.
GCS_PORT = 6379
# Ray's client server cannot be left out where grpcio is installed.
_HEAD_PORTS = {"port": GCS_PORT, "ray-client-server-port": 6386}
_NODE_PORTS = {
    "node-manager-port": 6380,
    "object-manager-port": 6381,
    "runtime-env-agent-port": 6382,
    "dashboard-agent-grpc-port": 6383,
    "dashboard-agent-listen-port": 6384,
    "metrics-export-port": 6385,
    "min-worker-port": 10002,
    "max-worker-port": 10999,
}


def environment(token: Path) -> dict[str, str]:
    """What Ray's processes, and programs that join the cluster, need in their environment.

    Args:
        token: the file with the token that lets a process in.
    """
    # A caller's own Ray is none of the cluster's business.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return outside | {
        **WORKER_ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's agents overwrite their environment with their process title otherwise.
        "SPT_NOENV": "1",
    }


def command(
    *,
    address: str,
    head_address: str | None,
    folder: Path,
    cpus: int,
    object_store_bytes: int,
    system_config: Mapping[str, object],
) -> list[str]:
    """The command that starts Ray on a node and returns when it runs.

    Args:
        address: of the node.
        head_address: host and port of the head's control service; None: this node is the head.
        folder: for sockets, logs and spilled objects.
        cpus: that Ray may hand out.
        object_store_bytes: that Ray's object store holds before it spills.
        system_config: Ray's internal settings, for the head, which hands them to the other nodes.
    """
    options: dict[str, object] = {
        "node-ip-address": address,
        "temp-dir": folder,
        "num-cpus": cpus,
        "num-gpus": 0,
        "object-store-memory": object_store_bytes,
        "include-log-monitor": "false",
        **_NODE_PORTS,
    }
    if head_address is None:
        options |= {**_HEAD_PORTS, "include-dashboard": "false"}
        if system_config:
            options["system-config"] = json.dumps(dict(system_config))
    else:
        options["address"] = head_address
    # The autoscaler's monitor is of no use here.
    role = ["--head", "--no-monitor"] if head_address is None else []
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"),
        *role,
        *(f"--{name}={value}" for name, value in options.items()),
    ]
