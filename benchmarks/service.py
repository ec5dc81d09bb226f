"""Latency of the service: `python -m benchmarks.service`. Writes benchmarks/SERVICE.md.

Calls are timed one by one by a client of the generated stub, over a real socket: with 50 jobs recorded and nothing running, and
with a job that trains; in turn, so that what slows the machine down slows both.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import grpc

from benchmarks.machine import setting
from benchmarks.tables import number, table
from shardsgd.protos import training_pb2 as pb
from shardsgd.protos import training_pb2_grpc as pb_grpc

ROUNDS, CALLS = 4, 50
RECORDED = 50
OUT = Path(__file__).parent / "SERVICE.md"


def spec(steps: int, *, workers: int = 2) -> pb.JobSpec:
    """digits, as in examples/digits.toml, for so many steps."""
    return pb.JobSpec(
        name="bench",
        data=pb.Data(source="digits"),
        model=pb.Model(hidden=pb.Sizes(items=[128, 64])),
        workers=pb.Workers(count=workers),
        stop=pb.Stop(steps=steps),
    )


@contextmanager
def service(store: Path) -> Iterator[pb_grpc.TrainingServiceStub]:
    """A service of its own process, and a stub."""
    command = [sys.executable, "-m", "shardsgd", "serve", "--address", "127.0.0.1:0", "--store", str(store)]
    with (
        open(store.with_suffix(".log"), "wb") as errors,
        Popen([*command, "--workers", "2", "--warm", "2"], stdout=PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None, "a pipe"
        address = process.stdout.readline().split()[-1]
        with grpc.insecure_channel(address) as channel:
            yield pb_grpc.TrainingServiceStub(channel)
        process.terminate()


def timed(call: Callable[[], object], times: int) -> list[float]:
    """Seconds of each of so many calls."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return taken


def create(stub: pb_grpc.TrainingServiceStub, job: pb.JobSpec, priority: int = 0) -> pb.Job:
    """A job."""
    request = pb.CreateJobRequest(spec=job, request_id=str(uuid.uuid4()), priority=priority)
    return stub.CreateJob(request, timeout=30).job


def delivery(stub: pb_grpc.TrainingServiceStub, job_id: str, events: int) -> list[float]:
    """Seconds from when events of metrics happened, by the service's clock, to when they are here. Same machine, same clock."""
    after = stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=10).job.last_sequence
    delays = []
    for event in stub.WatchJob(pb.WatchJobRequest(job_id=job_id, after_sequence=after), timeout=120):
        delays.append(time.time() - event.time.ToNanoseconds() / 1e9)
        if len(delays) >= events:
            return delays
    return delays


def first_step(stub: pb_grpc.TrainingServiceStub) -> float:
    """Seconds from CreateJob to the first step's event."""
    begun = time.perf_counter()
    job = create(stub, spec(5))
    for event in stub.WatchJob(pb.WatchJobRequest(job_id=job.job_id), timeout=120):
        if event.WhichOneof("event") == "metrics":
            taken = time.perf_counter() - begun
    return taken


def ended(stub: pb_grpc.TrainingServiceStub, job_id: str) -> None:
    """Waits until a job has ended."""
    for _ in stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=600):
        pass


def latencies(stub: pb_grpc.TrainingServiceStub, known: str, *, waits: bool) -> dict[str, list[float]]:
    """Seconds of single calls.

    Args:
        stub: of the service.
        known: a job that has ended.
        waits: whether a job that is created waits behind another; if not, each is let end before the next is timed.
    """
    creating = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        job = create(stub, spec(5), priority=-100)
        creating.append(time.perf_counter() - begun)
        if waits:
            stub.CancelJob(pb.CancelJobRequest(job_id=job.job_id), timeout=30)
        ended(stub, job.job_id)
    found = {"CreateJob": creating}
    found["GetJob"] = timed(lambda: stub.GetJob(pb.GetJobRequest(job_id=known), timeout=10), CALLS)
    found["ListJobs"] = timed(lambda: stub.ListJobs(pb.ListJobsRequest(page_size=50), timeout=10), CALLS)
    return found


def rows(name: str, idle: Sequence[float], busy: Sequence[float]) -> list[str]:
    """p50 and p99 in ms."""
    cells = [f"{1e3 * value:.2f}" for times in (idle, busy) for value in (statistics.median(times), p99(times))]
    return [name, *cells, number(statistics.median(busy) / statistics.median(idle))]


def p99(times: Sequence[float]) -> float:
    """99th percentile."""
    return statistics.quantiles(times, n=100, method="inclusive")[98]


def main() -> None:
    """Measures and writes the table."""
    idle: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    events: list[float] = []
    with tempfile.TemporaryDirectory() as scratch, service(Path(scratch) / "store") as stub:
        recorded = [create(stub, spec(3)).job_id for _ in range(RECORDED)]
        for job_id in recorded:
            ended(stub, job_id)
        starts = [first_step(stub) for _ in range(5)]
        for number_ in range(ROUNDS):
            _merge(idle, latencies(stub, recorded[0], waits=False))
            blocker = create(stub, spec(10**7))
            _until(stub, blocker.job_id, pb.JOB_STATE_RUNNING)
            watcher = threading.Thread(target=lambda job_id=blocker.job_id: events.extend(delivery(stub, job_id, 200)))
            watcher.start()
            _merge(busy, latencies(stub, recorded[0], waits=True))
            watcher.join()
            stub.CancelJob(pb.CancelJobRequest(job_id=blocker.job_id), timeout=10)
            ended(stub, blocker.job_id)
            sys.stderr.write(f"round {number_ + 1}/{ROUNDS}\n")
    lines = [rows(name, idle[name], busy[name]) for name in idle]
    head = ["ms", "idle: p50", "p99", "while a job trains: p50", "p99", "ratio of p50"]
    text = [
        "# The service's latency\n",
        "`python -m benchmarks.service`. "
        + ", ".join(
            f"{key}: {value}" for key, value in setting(0).items() if key not in ("rounds", "torch", "scikit-learn")
        )
        + ".\n",
        f"{RECORDED} jobs recorded; {ROUNDS} rounds of {CALLS} calls each, one after another, idle and busy in turn.\n",
        table(head, lines),
        "",
        f"Events, from when a step happened to the watcher: p50 {1e3 * statistics.median(events):.0f} ms, "
        f"p99 {1e3 * p99(events):.0f} ms (they are sent ten times a second).",
        "",
        f"First step of a job on a warm service, from CreateJob: median {statistics.median(starts):.2f} s "
        f"({min(starts):.2f} to {max(starts):.2f}).",
    ]
    OUT.write_text("\n".join(text) + "\n")
    sys.stdout.write(OUT.read_text())


def _until(stub: pb_grpc.TrainingServiceStub, job_id: str, state: pb.JobState) -> None:
    for event in stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=120):
        if event.state_change.state == state:
            return


def _merge(into: dict[str, list[float]], found: dict[str, list[float]]) -> None:
    for name, times in found.items():
        into.setdefault(name, []).extend(times)


if __name__ == "__main__":
    main()
