"""A process that runs one job at a time: `python -P -m shardsgd.coordinator.service.runner SERVICE KEEPER ADDRESS WORKERS`.

The arguments are the sockets to the service and to Ray's keeper, as file descriptors, Ray's address, and how many workers to
start ahead. What lets it into Ray is in its environment. It leaves, having stopped its job with a checkpoint, when either
socket closes: so it outlives neither.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import ray
import setproctitle

# All that a job needs is imported before one comes, scikit-learn and matplotlib (of the report) included.
import sklearn.datasets  # noqa: F401

import shardsgd.coordinator.report  # noqa: F401
from shardsgd.coordinator.checkpoint import has_checkpoint
from shardsgd.coordinator.data import load_dataset
from shardsgd.coordinator.outputs import RunFolder
from shardsgd.coordinator.records import as_json
from shardsgd.coordinator.service.runner_events import EventSender
from shardsgd.coordinator.service.runner_inbox import Inbox, Order
from shardsgd.coordinator.service.runner_messages import Ended, Message, Ready, encode
from shardsgd.coordinator.training import run_training
from shardsgd.errors import InputError, InterruptedJobError, JobError
from shardsgd.spec import JobSpec
from shardsgd.spec_files import parse_spec
from shardsgd.workers.idle_workers import IdleWorkers
from shardsgd.workers.pool import last_line
from shardsgd.workers.ray_runtime import joined_ray

_TITLE = "shardsgd-loop"

# How long after an error that may be Ray's its keeper's death may be noticed.
_KEEPER_S = 0.3


def main() -> None:
    """Runs jobs until it is to leave."""
    setproctitle.setproctitle(_TITLE)
    faulthandler.enable()
    numbers = [int(argument) for argument in sys.argv[1:3]]
    for number in numbers:
        os.set_inheritable(number, False)
    with socket.socket(fileno=numbers[0]) as service:
        inbox = Inbox(service, numbers[1])
        signal.signal(signal.SIGTERM, lambda *_: inbox.leave())
        # What a terminal says is meant for the service, which says what is to become of the jobs.
        for harmless in (signal.SIGINT, signal.SIGHUP):
            signal.signal(harmless, lambda *_: None)
        try:
            _work(service, inbox, address=sys.argv[3], workers=int(sys.argv[4]))
        except JobError as error:
            sys.exit(str(error))
        except ray.exceptions.RayError as error:
            sys.exit(f"a worker could not start: {last_line(error)}")


def _work(service: socket.socket, inbox: Inbox, *, address: str, workers: int) -> None:
    def send(message: Message) -> None:
        service.sendall(encode(message))

    with joined_ray(address):
        idle = IdleWorkers({})
        idle.start(workers)
        send(Ready(len(idle)))
        while (order := inbox.next()) is not None:
            sender = EventSender(send, Path(order.run.folder), order.run.position)
            ended = _run(order, sender, idle)
            if ended.outcome == "FAILED" and not ended.input_error and inbox.without_ray.wait(_KEEPER_S):
                ended = replace(ended, outcome="INTERRUPTED", reason=f"Ray was killed: {ended.reason}")
            setproctitle.setproctitle(_TITLE)
            sender.end(replace(ended, workers=len(idle)))
        if inbox.without_ray.is_set():
            # Nothing can be said to Ray any more, and waiting for its answers would take long.
            os._exit(0)


def _run(order: Order, sender: EventSender, idle: IdleWorkers) -> Ended:
    """Runs a job and says how it ended. What is not foreseen ends the process, and so tells the service.

    Where it was interrupted, because it was told to, there is no reason to give.
    """
    try:
        spec = parse_spec(order.run.spec_toml).resolved()
        setproctitle.setproctitle(f"{_TITLE} {spec.name}")
        return _trained(spec, order, sender, idle)
    except InputError as error:
        return Ended("FAILED", str(error), input_error=True)
    except InterruptedJobError:
        return Ended("INTERRUPTED", "")
    except JobError as error:
        return Ended("FAILED", str(error))


def _trained(spec: JobSpec, order: Order, sender: EventSender, idle: IdleWorkers) -> Ended:
    folder, control = RunFolder(Path(order.run.folder)), order.control
    dataset = load_dataset(spec)
    if control.interrupted():
        raise InterruptedJobError("interrupted before the first step")
    summary = run_training(
        spec,
        dataset,
        folder,
        sender,
        resume=has_checkpoint(folder.checkpoints),
        # From a session whose service was killed, and which is still about to stop.
        take_over=True,
        control=control,
        idle=idle,
        about_to_step=sender.about_to_step,
    ).summary
    return Ended(summary.state, "" if summary.state == "INTERRUPTED" else summary.reason, as_json(summary))


if __name__ == "__main__":
    main()
