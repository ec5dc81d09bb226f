"""A service in the test's own process that fails on declared occasions, as a real one cannot be made to.

Streams break, answers are lost, bytes are damaged.
"""

# ruff: noqa: N802 — calls are named by the .proto

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from shardsgd import JobSpec
from shardsgd.coordinator.records import GradientNoise, Summary, VariancePoint, as_json
from shardsgd.coordinator.service.event_messages import summary_message
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.coordinator.service.rich_errors import TRAILER, status_of
from shardsgd.protos import training_pb2 as pb
from shardsgd.protos import training_pb2_grpc as pb_grpc
from shardsgd.spec_messages import spec_message

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
ENDED_NUMBERS = [pb.JobState.Value(f"JOB_STATE_{state}") for state in ENDED]


@dataclass
class Fault:
    """A call of `method` fails, once: before it has sent or taken more than `messages`, or after it was done.

    Attributes:
        error: the status, or what the real service would refuse with.
    """

    method: str
    messages: int = 0
    done: bool = False
    error: grpc.StatusCode | ServiceError = grpc.StatusCode.UNAVAILABLE


@dataclass
class FakeService(pb_grpc.TrainingServiceServicer):
    """Jobs that stand where the test puts them.

    Attributes:
        jobs: by id, newest last.
        events: of each job.
        parameters: of each job: the file's bytes, and the header that is sent before them.
        datasets: bytes by sha256.
        faults: still to come.
        calls: how often each method was called.
        metadata: that came with the last call.
        requests: of CreateJob.
        watching: calls of WatchJob that have not ended.
        then: called with the id of every job that is submitted.
    """

    jobs: dict = field(default_factory=dict)
    events: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    datasets: dict = field(default_factory=dict)
    faults: list = field(default_factory=list)
    calls: Counter = field(default_factory=Counter)
    metadata: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    watching: int = 0
    then: Callable = lambda job_id: None

    def __post_init__(self):
        self.changed = threading.Condition()
        self.closing = False

    # What a test does to it.

    def add_job(self, job_id="toy-1", state="QUEUED", **fields):
        spec = JobSpec(name=fields.pop("name", "toy"), data={"source": "iris"})
        created = Timestamp(seconds=1_700_000_000 + len(self.jobs))
        job = pb.Job(job_id=job_id, spec=spec_message(spec), intent="INTENT_RUN", owner="ada", create_time=created)
        job.MergeFrom(pb.Job(**fields))
        self.jobs[job_id], self.events[job_id] = job, []
        self.happen(job_id, state)
        return job

    def happen(self, job_id, event, reason="", summary=None):
        """An event: a state's name, or a part of WatchJobResponse."""
        job = self.jobs[job_id]
        with self.changed:
            job.last_sequence += 1
            message = pb.WatchJobResponse(sequence=job.last_sequence, time=Timestamp(seconds=1_700_000_000))
            if isinstance(event, str):
                job.state, job.reason = f"JOB_STATE_{event}", reason
                message.state_change.state, message.state_change.reason = job.state, reason
                if summary is not None:
                    job.summary.CopyFrom(summary_message(as_json(summary)))
                    message.state_change.summary.CopyFrom(job.summary)
                if event in ENDED:
                    job.end_time.CopyFrom(message.time)
            else:
                name = {pb.Metrics: "metrics", pb.Validation: "validation", pb.Incident: "incident"} | {
                    pb.LogLine: "log_line",
                    pb.Thinned: "thinned",
                }
                getattr(message, name[type(event)]).CopyFrom(event)
                if isinstance(event, pb.Metrics):
                    job.progress.CopyFrom(event)
            self.events[job_id].append(message)
            self.changed.notify_all()

    def steps(self, job_id, count):
        for step in range(count):
            self.happen(job_id, pb.Metrics(step=step, loss=1 / (step + 1), samples_per_second=100.0))

    def set_parameters(self, job_id, content, parameters_sha256="", sha256=None):
        header = pb.ParametersHeader(
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest() if sha256 is None else sha256,
            parameters_sha256=parameters_sha256,
        )
        self.parameters[job_id] = (content, header)

    # What a client asks of it.

    def _called(self, method, context):
        self.calls[method] += 1
        self.metadata = dict(context.invocation_metadata())

    def _due(self, method, context, *, messages=0, done=False):
        # One after another, as they are declared.
        fault = next((fault for fault in self.faults if fault.method == method), None)
        if fault is not None and fault.done == done and (done or messages >= fault.messages):
            self.faults.remove(fault)
            refuse(context, fault.error)

    def _of(self, request, context):
        if request.job_id not in self.jobs:
            refuse(context, ServiceError(Reason.JOB_NOT_FOUND, f"'{request.job_id}': you have no such job"))
        return self.jobs[request.job_id]

    def _unary(self, method, context, act):
        self._called(method, context)
        self._due(method, context)
        answer = act()
        self._due(method, context, done=True)
        return answer

    def GetServerInfo(self, request, context):
        return self._unary(
            "GetServerInfo",
            context,
            lambda: pb.GetServerInfoResponse(version="9.9", workers_total=4, owner="ada", limits={"open_jobs": 5}),
        )

    def CreateJob(self, request, context):
        def act():
            self.requests.append(request)
            known = {job.reason: job for job in self.jobs.values()}
            job = known.get(request.request_id)
            if job is None:
                job = self.add_job(f"toy-{len(self.jobs) + 1}", priority=request.priority, reason=request.request_id)
                job.reason = request.request_id
                job.spec.CopyFrom(request.spec)
            self.then(job.job_id)
            return pb.CreateJobResponse(job=job)

        return self._unary("CreateJob", context, act)

    def GetJob(self, request, context):
        return self._unary("GetJob", context, lambda: pb.GetJobResponse(job=self._of(request, context)))

    def ListJobs(self, request, context):
        def act():
            jobs = [job for job in reversed(self.jobs.values()) if not request.states or job.state in request.states]
            start = int(request.page_token or 0)
            end = start + 2  # pages of two, whatever is asked for
            return pb.ListJobsResponse(jobs=jobs[start:end], next_page_token=str(end) if end < len(jobs) else "")

        return self._unary("ListJobs", context, act)

    def _intent(self, method, request, context, intent, answer):
        def act():
            job = self._of(request, context)
            if job.state in (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED):
                refuse(context, ServiceError(Reason.ILLEGAL_STATE, "cannot do this to a job that has ended"))
            job.intent = intent
            return answer(job=job)

        return self._unary(method, context, act)

    def PauseJob(self, request, context):
        return self._intent("PauseJob", request, context, "INTENT_PAUSE", pb.PauseJobResponse)

    def ResumeJob(self, request, context):
        return self._intent("ResumeJob", request, context, "INTENT_RUN", pb.ResumeJobResponse)

    def CancelJob(self, request, context):
        return self._intent("CancelJob", request, context, "INTENT_CANCEL", pb.CancelJobResponse)

    def ScaleJob(self, request, context):
        return self._unary("ScaleJob", context, lambda: pb.ScaleJobResponse(job=self._of(request, context)))

    def DeleteJob(self, request, context):
        def act():
            del self.jobs[self._of(request, context).job_id]
            return pb.DeleteJobResponse()

        return self._unary("DeleteJob", context, act)

    def WatchJob(self, request, context):
        self.watching += 1
        try:
            yield from self._watch(request, context)
        finally:
            self.watching -= 1

    def _watch(self, request, context):
        self._called("WatchJob", context)
        job = self._of(request, context)
        events, sent = self.events[job.job_id], 0
        after = request.after_sequence
        while after < len(events) or job.state not in ENDED_NUMBERS:
            self._due("WatchJob", context, messages=sent)
            with self.changed:
                while len(events) <= after and not self.closing and context.is_active():
                    self.changed.wait(1)
            if self.closing:
                refuse(context, ServiceError(Reason.SHUTTING_DOWN, "the service stops"))
            if not context.is_active():
                return
            yield events[after]
            after, sent = after + 1, sent + 1
        self._due("WatchJob", context, done=True)

    def UploadDataset(self, parts, context):
        self._called("UploadDataset", context)
        header = next(parts).header
        content, taken = b"", 0
        while header.sha256 not in self.datasets:
            self._due("UploadDataset", context, messages=taken)
            part = next(parts, None)
            if part is None:
                if hashlib.sha256(content).hexdigest() != header.sha256:
                    refuse(context, ServiceError(Reason.CHECKSUM_MISMATCH, "other bytes came"))
                self.datasets[header.sha256] = content
                self._due("UploadDataset", context, done=True)
                return pb.UploadDatasetResponse(source=f"sha256:{header.sha256}")
            content, taken = content + part.chunk, taken + 1
        return pb.UploadDatasetResponse(source=f"sha256:{header.sha256}", existed=True)

    def DownloadParameters(self, request, context):
        self._called("DownloadParameters", context)
        content, header = self.parameters[self._of(request, context).job_id]
        self._due("DownloadParameters", context)
        yield pb.DownloadParametersResponse(header=header)
        for sent, start in enumerate(range(request.offset_bytes, len(content), 1000), start=1):
            yield pb.DownloadParametersResponse(chunk=content[start : start + 1000])
            self._due("DownloadParameters", context, messages=sent)


def refuse(context, error):
    """Ends a call as the real service does."""
    if isinstance(error, grpc.StatusCode):
        context.abort(error, "on purpose")
    context.set_trailing_metadata(((TRAILER, status_of(error).SerializeToString()),))
    context.abort(error.code, error.message)


@contextlib.contextmanager
def fake_service(service=None, *, port=0, credentials=None):
    """A service that listens, and its address. All of its faults must have fired by the end."""
    service = service or FakeService()
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_TrainingServiceServicer_to_server(service, server)
    where = f"127.0.0.1:{port}"
    bound = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
    server.start()
    try:
        yield service, f"127.0.0.1:{bound}"
        assert service.faults == [], "these never came to be"
    finally:
        service.closing = True
        with service.changed:
            service.changed.notify_all()
        server.stop(None).wait()


def summary(**changes):
    """How a job ended."""
    noise = GradientNoise(0.9, 0.0029, 314.2, (VariancePoint(2.0, 0.5, 0.45),), 240.0, 420.0)
    fields = {
        "name": "toy", "state": "SUCCEEDED", "reason": "30 epochs are done", "steps": 180, "epochs": 30.0,
        "train_loss": 0.02341, "validation": {"loss": 0.1042, "accuracy": 0.97361},
        "parameters_sha256": "0123456789abcdef" * 4, "seconds": 83.4, "samples_per_second": 4211.3,
        "workers": 2, "recoveries": 1, "gradient_noise": noise,
    }  # fmt: skip
    return Summary(**fields | changes)


def summary_object(given):
    """As summary.json has it."""
    return json.loads(json.dumps(as_json(given)))
