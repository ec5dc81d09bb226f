"""A real service for tests: `shardsgd serve` in a process of its own, and a channel to it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import grpc

from shardsgd.protos import training_pb2 as pb
from shardsgd.protos import training_pb2_grpc as pb_grpc

START_S = 60


class Service:
    """A service that runs, on a store that outlives it."""

    def __init__(self, store: Path, *arguments, workers=2):
        self.store = store
        self._errors = store.with_suffix(".log")
        # A path as users write it. Other processes of a service have another current folder.
        command = [sys.executable, "-P", "-m", "shardsgd", "serve", "--address", "127.0.0.1:0", "--store", store.name]
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*map(str, [*command, "--workers", workers, *arguments])],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                cwd=store.parent,
            )
        line = self.process.stdout.readline()
        found = re.search(r"serves on (\S+)", line)
        assert found, f"{line}\n{self.errors()}"
        self.address = found[1]

    def errors(self):
        """What it said on stderr."""
        return self._errors.read_text()

    def kill(self):
        """SIGKILL, as the kernel would send it."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.process.stdout.close()


@contextlib.contextmanager
def serving(store: Path, *arguments, workers=2):
    """A service for the length of a block."""
    service = Service(store, *arguments, workers=workers)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


@contextlib.contextmanager
def stub_of(address):
    """The generated stub of a service that takes everybody."""
    with grpc.insecure_channel(address) as channel:
        yield pb_grpc.TrainingServiceStub(channel)


def job(name="toy", *, epochs=3, rows=256, count=1, **sections):
    """A small job: softmax regression on digits."""
    return pb.JobSpec(
        name=name,
        data=pb.Data(source="digits"),
        model=pb.Model(kind=pb.MODEL_KIND_LINEAR),
        workers=pb.Workers(count=count),
        batch=pb.Batch(size=rows),
        stop=pb.Stop(epochs=epochs),
        **sections,
    )


def ended(stub, job_id, timeout=60):
    """A job once it has ended, and its events."""
    events = list(stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=timeout))
    return stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=10).job, events


def until(stub, job_id, *states, after=0, timeout=60):
    """Waits for the event, after one of a number, with which a job comes into one of these states."""
    for event in stub.WatchJob(pb.WatchJobRequest(job_id=job_id, after_sequence=after), timeout=timeout):
        if event.WhichOneof("event") == "state_change" and event.state_change.state in states:
            return event
    raise AssertionError("the job ended in another state")


def processes_with(text):
    """Command lines of processes in whose environment or command line a text is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in line or text in (entry / "environ").read_bytes().decode(errors="replace"):
                found.append((int(entry.name), line))
    return [each for each in found if each[0] != os.getpid()]
