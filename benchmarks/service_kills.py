"""The service killed again and again under a stream of CreateJobs: `python -m benchmarks.service_kills [--rounds 100]`.

Each round starts the service on the same store and kills it (SIGKILL) at a random moment, also before it is ready, while a
client creates jobs one after another and repeats what was not answered. In the end every job that was acknowledged must be
there, once, with the bits of an undisturbed run, and its events without a gap. Writes benchmarks/SERVICE_KILLS.md; exit code 1
if one is not.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import grpc

import shardsgd
from benchmarks.machine import setting
from benchmarks.progress import say
from benchmarks.tables import table
from shardsgd.protos import training_pb2 as pb
from shardsgd.protos import training_pb2_grpc as pb_grpc
from shardsgd.spec_messages import spec_message

OUT = Path(__file__).parent / "SERVICE_KILLS.md"
# From the start of the service to its end, at most.
_LONGEST_ROUND_S = 12.0
_BETWEEN_JOBS_S = 0.25
_SEEDS = 3


def spec(seed: int) -> shardsgd.JobSpec:
    """Short enough for many of them to end, long enough for some to be killed."""
    return shardsgd.JobSpec(
        name=f"killed-{seed}",
        seed=seed,
        data={"source": "digits"},
        model={"kind": "linear"},
        workers={"count": 1},
        stop={"epochs": 60},
        checkpoint={"every_seconds": 0.2},
    )


class Stream:
    """Creates jobs until it is told to stop, through whatever service there is.

    Attributes:
        acknowledged: job by request.
        unanswered: requests that were never answered.
        wrong: what must not have happened.
    """

    def __init__(self) -> None:
        self.acknowledged: dict[str, tuple[str, int]] = {}
        self.unanswered: list[tuple[str, int]] = []
        self.wrong: list[str] = []
        self.address = ""
        self.calls = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Creates no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        chance = random.Random(1)
        request, seed = str(uuid.UUID(int=chance.getrandbits(128))), 0
        while not self._stopped.wait(_BETWEEN_JOBS_S):
            if not self.address:
                continue
            # A known one once more, now and then: it must be the job that it was.
            again = chance.choice(list(self.acknowledged)) if self.acknowledged and chance.random() < 0.1 else None
            name, kind = (again, self.acknowledged[again][1]) if again else (request, seed)
            try:
                with grpc.insecure_channel(self.address) as channel:
                    stub = pb_grpc.TrainingServiceStub(channel)
                    asked = pb.CreateJobRequest(spec=spec_message(spec(kind)), request_id=name)
                    self.calls += 1
                    job = stub.CreateJob(asked, timeout=5).job
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.wrong.append(f"CreateJob: {error.code().name}: {error.details()}")
                continue
            if self.acknowledged.setdefault(name, (job.job_id, kind))[0] != job.job_id:
                self.wrong.append(f"request {name} made two jobs")
            if not again:
                request, seed = str(uuid.UUID(int=chance.getrandbits(128))), (seed + 1) % _SEEDS
        self.unanswered = [(request, seed)]


@contextlib.contextmanager
def started(store: Path) -> Iterator[Popen[str]]:
    """A service, for the length of a block; killed at its end."""
    command = [
        sys.executable,
        "-m",
        "shardsgd",
        "serve",
        "--address",
        "127.0.0.1:0",
        "--store",
        str(store),
        "--workers",
        "2",
    ]
    with (
        open(store.with_suffix(".log"), "ab") as errors,
        Popen(command, stdout=PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def address_of(process: Popen[str]) -> str:
    """Where it listens; empty if it was killed before it did."""
    assert process.stdout is not None, "a pipe"
    return (process.stdout.readline().split() or [""])[-1]


def disturbed(store: Path, rounds: int, stream: Stream) -> list[float]:
    """Kills a service so many times; after how many seconds each."""
    chance = random.Random(0)
    lived = []
    for number in range(rounds):
        begun, patience = time.monotonic(), chance.uniform(0.5, _LONGEST_ROUND_S)
        with started(store) as process:
            timer = threading.Timer(patience, process.kill)
            timer.start()
            stream.address = address_of(process)
            process.wait()
            stream.address = ""
        lived.append(time.monotonic() - begun)
        if number % 10 == 9:
            say(f"  {number + 1} of {rounds} kills, {len(stream.acknowledged)} jobs acknowledged")
    return lived


def checked(stub: pb_grpc.TrainingServiceStub, stream: Stream, expected: list[str]) -> tuple[list[str], Counter[str]]:
    """What is wrong with the jobs in the end, and how many runs they took."""
    wrong, runs = list(stream.wrong), Counter[str]()
    listed: list[str] = []
    token = ""
    while True:
        page = stub.ListJobs(pb.ListJobsRequest(page_size=500, page_token=token), timeout=30)
        listed += [job.job_id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    known = {job_id for job_id, _ in stream.acknowledged.values()}
    if len(set(listed)) != len(listed) or not known <= set(listed) or len(listed) - len(known) > len(stream.unanswered):
        wrong.append(f"{len(listed)} jobs listed, {len(set(listed))} of them different, {len(known)} acknowledged")
    for job_id, seed in sorted(stream.acknowledged.values()):
        events = list(stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=600))
        job = stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=30).job
        states = [event.state_change.state for event in events if event.WhichOneof("event") == "state_change"]
        steps = [event.metrics.step for event in events if event.WhichOneof("event") == "metrics"]
        runs[str(states.count(pb.JOB_STATE_STARTING))] += 1
        if job.state != pb.JOB_STATE_SUCCEEDED:
            wrong.append(f"{job_id} is {pb.JobState.Name(job.state)}: {job.reason}")
        elif job.summary.parameters_sha256 != expected[seed]:
            wrong.append(f"{job_id} ended in other bits")
        if [event.sequence for event in events] != list(range(1, job.last_sequence + 1)):
            wrong.append(f"{job_id}: events with a gap or a repeat")
        if steps != sorted(set(steps)):
            wrong.append(f"{job_id}: a step was told twice")
    return wrong, runs


def main() -> int:
    """Runs it, writes the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_kills", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="kills (default 100)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        expected = [
            shardsgd.train(spec(seed), out=Path(scratch) / f"alone-{seed}").summary.parameters_sha256
            for seed in range(_SEEDS)
        ]
        store, stream = Path(scratch) / "store", Stream()
        try:
            lived = disturbed(store, rounds, stream)
        finally:
            stream.stop()
        with started(store) as process, grpc.insecure_channel(address_of(process)) as channel:
            say(f"  the last service: {len(stream.acknowledged)} jobs to end")
            wrong, runs = checked(pb_grpc.TrainingServiceStub(channel), stream, expected)
    rows = [
        ["kills of the service", str(rounds)],
        ["seconds it lived, least to most", f"{min(lived):.1f} to {max(lived):.1f}"],
        ["CreateJob calls", str(stream.calls)],
        ["jobs acknowledged", str(len(stream.acknowledged))],
        *[
            [f"of these, run in {times} pieces", str(count)]
            for times, count in sorted(runs.items(), key=lambda i: int(i[0]))
        ],
        ["lost, double, failed, in other bits, or with a gap or a repeat in their events", str(len(wrong))],
    ]
    text = "# The service, killed\n\n`python -m benchmarks.service_kills`. "
    text += (
        ", ".join(
            f"{key}: {value}" for key, value in setting(0).items() if key not in ("rounds", "torch", "scikit-learn")
        )
        + ".\n\n"
        + table(["", ""], rows)
        + "\n"
    )
    OUT.write_text(text + "".join(f"\nWRONG: {line}" for line in wrong))
    sys.stdout.write(OUT.read_text())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
