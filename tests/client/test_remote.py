"""The Python client, through broken connections, lost answers and damaged bytes that a service makes on purpose."""

import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from json import dumps

import grpc
import numpy as np
import pytest
from fake_service import FakeService, Fault, fake_service, summary, summary_object
from safetensors.numpy import load_file, save

import shardsgd
from shardsgd import JobSpec
from shardsgd.model.layout import parameters_sha256
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec_messages import spec_from_message

SPEC = JobSpec(name="toy", data={"source": "iris"}, workers={"count": 3})
JOB = "toy-1"


@pytest.fixture
def service():
    with fake_service() as (service, address):
        service.address = address
        yield service


@pytest.fixture
def client(service):
    with shardsgd.Client(service.address, patience_s=30) as client:
        yield client


def arrays(seed=0):
    random = np.random.default_rng(seed)
    return {"layer0.weight": random.normal(size=(30, 40)).astype("f4"), "layer0.bias": random.normal(size=40)}


def ended(service, job_id=JOB, state="SUCCEEDED", seed=0, **changes):
    """A job that has ended, with parameters."""
    content = arrays(seed)
    sha256 = parameters_sha256(content)
    service.add_job(job_id)
    service.steps(job_id, 10)
    service.happen(job_id, state, "so it ended", summary(parameters_sha256=sha256, **changes))
    service.set_parameters(job_id, save(content), sha256)
    return content


def equal(given, expected):
    return list(given) == sorted(expected) and all(
        given[name].tobytes() == expected[name].tobytes() and given[name].dtype == expected[name].dtype
        for name in given
    )


def test_the_package_stays_light_until_its_client_is_used():
    script = (
        "import sys, shardsgd\n"
        "print([name for name in ('grpc', 'google.protobuf', 'ray', 'jax') if name in sys.modules])\n"
        "assert set(shardsgd.__all__) <= set(dir(shardsgd))\n"
        "for name in shardsgd.__all__: getattr(shardsgd, name)\n"
        "shardsgd.Client('127.0.0.1:1')\n"
        "print([name for name in ('ray', 'jax') if name in sys.modules])\n"
        "shardsgd.no_such_name\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
    assert "AttributeError: module 'shardsgd' has no attribute 'no_such_name'" in done.stderr


# Submitting.


def test_a_job_is_submitted_as_it_was_specified(service, client):
    job = client.submit(SPEC, priority=7)
    (request,) = service.requests
    assert spec_from_message(request.spec) == SPEC
    assert (request.priority, job.id) == (7, JOB)
    info = job.get()
    assert (info.name, info.state, info.intent, info.owner, info.priority) == ("toy", "QUEUED", "RUN", "ada", 7)
    assert info.spec == SPEC
    assert info.created_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (info.started_at, info.ended_at, info.progress, info.summary, info.queue_position) == (None,) * 5
    assert not info.ended


def test_a_lost_answer_makes_no_second_job(service, client):
    # More often than gRPC tries by itself.
    service.faults += [Fault("CreateJob", done=True) for _ in range(9)]
    job = client.submit(SPEC)
    assert service.calls["CreateJob"] == 10
    assert list(service.jobs) == [job.id]
    assert len({request.request_id for request in service.requests}) == 1


def test_each_submit_is_a_request_of_its_own_unless_told(service, client):
    first, second = client.submit(SPEC), client.submit(SPEC)
    assert first.id != second.id
    request_id = "0" * 32
    assert client.submit(SPEC, request_id=request_id).id == client.submit(SPEC, request_id=request_id).id


@pytest.mark.parametrize(
    "error", [grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED]
)
def test_nothing_but_unavailability_is_tried_again(service, client, error):
    service.faults += [Fault("CreateJob", error=error), Fault("GetJob", error=error), Fault("DeleteJob", error=error)]
    for act in (lambda: client.submit(SPEC), client.job(JOB).get, client.job(JOB).delete):
        with pytest.raises(shardsgd.RemoteError):
            act()
    assert service.calls.total() == 3


def test_patience_ends():
    with shardsgd.Client("127.0.0.1:1", patience_s=0.3) as client:
        began = time.monotonic()
        with pytest.raises(shardsgd.ServiceUnavailableError):
            client.submit(SPEC)
        with pytest.raises(shardsgd.ServiceUnavailableError):
            list(client.job(JOB).watch())
        assert time.monotonic() - began < 30


# Data.


def test_arrays_arrive_under_their_names(service, client):
    # Also under names that NumPy's own writer keeps for itself.
    given = {"x": np.arange(12.0).reshape(4, 3), "label": ["a", "b", "a", "b"], "file": [1, 2], "allow_pickle": [True]}
    client.submit(SPEC, data=given)
    (request,) = service.requests
    ((sha256, content),) = service.datasets.items()
    assert (request.spec.data.source, hashlib.sha256(content).hexdigest()) == (f"sha256:{sha256}", sha256)
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        assert {name: archive[name].tolist() for name in archive} == {
            name: np.asarray(value).tolist() for name, value in given.items()
        }


def test_equal_arrays_are_kept_once(service, client):
    first = client.upload({"x": np.arange(5), "y": np.ones(5)})
    assert client.upload({"x": np.arange(5), "y": np.ones(5)}) == first
    with zipfile.ZipFile(io.BytesIO(*service.datasets.values())) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, (
            "it says when it was made"
        )
    assert client.upload({"x": np.arange(6), "y": np.ones(5)}) != first
    assert len(service.datasets) == 2


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz", ".parquet", ".CSV"])
def test_a_file_arrives_byte_by_byte(service, client, tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(2_500_000))
    sent = []
    source = client.upload(path, progress=lambda done, total: sent.append((done, total)))
    assert service.datasets[source.removeprefix("sha256:")] == path.read_bytes()
    assert sent == [(2**20, 2_500_000), (2**21, 2_500_000), (2_500_000, 2_500_000)]


def test_a_broken_upload_is_sent_again(service, client, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(np.random.default_rng(0).bytes(5_000_000))
    service.faults += [Fault("UploadDataset", messages=count) for count in (0, 1, 3, 5)]
    service.faults += [Fault("UploadDataset", done=True)]
    client.submit(SPEC, data=str(path))
    assert list(service.datasets.values()) == [path.read_bytes()]


def test_bytes_that_are_there_are_not_sent_again(service, client, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(bytes(50_000_000))
    source = client.upload(path)
    sent = []
    assert client.upload(path, progress=lambda done, total: sent.append(done)) == source
    assert max(sent, default=0) < 50_000_000


def test_the_file_that_the_spec_names_is_uploaded_if_that_is_said(service, client, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,label\n1,2\n")
    spec = JobSpec(data={"source": str(path)})
    client.submit(spec)
    client.submit(spec, upload=True)
    there, uploaded = (request.spec.data.source for request in service.requests)
    assert (there, uploaded) == (str(path), f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    with pytest.raises(shardsgd.InputError, match="nothing to upload"):
        client.submit(SPEC, upload=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("missing.csv", "missing.csv: cannot be read: No such file"),
        ("folder", "folder: a folder cannot be uploaded"),
        ("notes.txt", "notes.txt: cannot be uploaded as it is; accepted: .npz, .npy, .csv, .parquet"),
        ({}, "no arrays"),
        ({"": [1]}, "not the name of an array"),
        ({3: [1]}, "not the name of an array"),
        ({"x": [object()]}, "array 'x' cannot be sent: Object arrays"),
        ({"x": [[1], [1, 2]]}, "array 'x' cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_told_before_anything_is(service, client, tmp_path, data, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(shardsgd.InputError, match=message):
        client.submit(SPEC, data=data)
    assert not service.calls


def test_a_file_that_changes_under_way_is_no_dataset(service, client, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(bytes(3_000_000))

    def change(done, total):
        with path.open("r+b") as file:
            file.seek(2_999_999)
            file.write(b"1")

    with pytest.raises(shardsgd.TransferError):
        client.upload(path, progress=change)
    assert not service.datasets


def test_a_file_that_grows_under_way_is_sent_as_it_was(service, client, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(bytes(3_000_000))

    def grow(done, total):
        with path.open("ab") as file:
            file.write(b"1")

    client.upload(path, progress=grow)
    assert list(service.datasets.values()) == [bytes(3_000_000)]


# Watching and waiting.


def watched(job, after=0, **arguments):
    return [event.sequence for event in job.watch(after, **arguments)]


def test_every_kind_of_event_arrives_typed(service, client):
    service.add_job(JOB)
    metrics = pb.Metrics(
        step=3, epoch=1, loss=0.5, learning_rate=0.1, gradient_norm=2.0, noise_scale=30.0, step_seconds=0.01,
        noise_norm_squared=-0.5, noise_scale_low=20.0, gain=1.5,
        samples_per_second=100.0, fraction_done=0.25, steps_left_out=2,
    )  # fmt: skip
    for event in (
        metrics,
        pb.Validation(step=4, epoch=1, loss=0.25, accuracy=0.75),
        pb.Validation(step=5, epoch=1, loss=0.25),
        pb.Incident(step=4, kind="lost", worker=0, reason="its connection closed"),
        pb.Incident(step=4, kind="recovered", leaves=3, seconds=0.5),
        pb.LogLine(text="hello"),
        pb.Thinned(first_sequence=8, count=1),
    ):
        service.happen(JOB, event)
    service.happen(JOB, "SUCCEEDED", "done", summary())
    begin, step, first, second, lost, recovered, log, thinned, end = client.job(JOB).watch()
    assert (begin.state, begin.summary, begin.ended) == ("QUEUED", None, False)
    assert begin.time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    record = step.record
    assert (record.step, record.loss, record.noise_trace, record.noise_scale) == (3, 0.5, None, 30.0)
    assert (record.noise_scale_low, record.noise_scale_high) == (20.0, None)
    assert (record.noise_norm_squared, record.gain) == (-0.5, 1.5)
    assert (step.pace.fraction_done, step.pace.eta_seconds, step.steps_left_out) == (0.25, None, 2)
    assert (first.record.accuracy, second.record.accuracy) == (0.75, None)
    assert (lost.record.worker, lost.record.seconds) == (0, None)
    assert (recovered.record.worker, recovered.record.leaves, recovered.record.seconds) == (None, 3, 0.5)
    assert (log.text, thinned.first_sequence, thinned.count) == ("hello", 8, 1)
    assert (end.state, end.reason, end.ended, end.summary) == ("SUCCEEDED", "done", True, summary())


def test_events_of_later_versions_are_passed_over(service, client):
    ended(service)
    service.events[JOB][3].ClearField("metrics")
    assert watched(client.job(JOB)) == [1, 2, 3, *range(5, 13)]


@pytest.mark.parametrize("after", [0, 5, 11, 12])
def test_a_watch_goes_on_where_it_broke(service, client, after):
    ended(service)
    breaks = max(0, 11 - after)
    service.faults += [Fault("WatchJob", messages=1) for _ in range(breaks)]
    lost = []
    assert watched(client.job(JOB), after, on_lost=lost.append) == list(range(after + 1, 13))
    assert [type(error) for error in lost] == [shardsgd.ServiceUnavailableError] * breaks


def test_breaks_in_a_row_are_one_trouble(service, client):
    ended(service)
    service.faults += [Fault("WatchJob", messages=3), *(Fault("WatchJob") for _ in range(4))]
    lost = []
    assert watched(client.job(JOB), on_lost=lost.append) == list(range(1, 13))
    assert len(lost) == 1


def test_a_watch_that_breaks_after_the_last_event_is_over(service, client):
    ended(service)
    service.faults += [Fault("WatchJob", done=True)]
    assert watched(client.job(JOB)) == list(range(1, 13))


def test_a_watch_lives_through_a_service_that_stops_and_starts(service):
    service.add_job(JOB, "RUNNING")
    service.steps(JOB, 4)
    with fake_service(FakeService(jobs=service.jobs, events=service.events)) as (_, address):
        client, lost = shardsgd.Client(address, patience_s=60), []
        watch = client.job(JOB).watch(on_lost=lost.append)
        seen = [next(watch).sequence for _ in range(5)]
    service.steps(JOB, 4)
    service.happen(JOB, "SUCCEEDED", summary=summary())
    port = int(address.rpartition(":")[2])
    with ThreadPoolExecutor() as pool, client:
        rest = pool.submit(lambda: [event.sequence for event in watch])
        while not lost:
            time.sleep(0.01)
        with fake_service(FakeService(jobs=service.jobs, events=service.events), port=port):
            assert seen + rest.result(60) == list(range(1, 11))
    assert [type(error) for error in lost] == [shardsgd.ServiceUnavailableError]


def test_a_watch_that_is_left_early_ends_at_the_service(service, client):
    service.add_job(JOB)
    watch = client.job(JOB).watch()
    next(watch)
    watch.close()
    service.steps(JOB, 1)
    assert watched_now(service) == 0


def test_a_signal_never_interrupts_grpc(service, client):
    """Ctrl-C in the middle of gRPC's own Python code has aborted the process."""
    service.add_job(JOB)
    interrupted = []

    def note(_, frame):
        interrupted.append([each.f_globals["__name__"] for each, _ in traceback.walk_stack(frame)])

    def disturb():
        while len(interrupted) < 20:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            time.sleep(0.001)
        service.happen(JOB, "SUCCEEDED")

    before = signal.signal(signal.SIGUSR1, note)
    try:
        watch = client.job(JOB).watch()
        next(watch)
        with ThreadPoolExecutor(1) as other:
            disturbed = other.submit(disturb)
            assert len(list(watch)) == 1
            disturbed.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert any("shardsgd.remote_calls" in names for names in interrupted)
    assert not [names for names in interrupted if any(name.startswith("grpc") for name in names)]


def watched_now(service):
    """Watches that the service still works on, once those that have been cancelled had time to end."""
    deadline = time.monotonic() + 10
    while service.watching and time.monotonic() < deadline:
        time.sleep(0.01)
    return service.watching


def test_waiting_returns_how_the_job_ended(service, client):
    service.add_job(JOB)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.job(JOB).wait)
        service.faults += [Fault("WatchJob", messages=3)]
        service.happen(JOB, "RUNNING")
        service.steps(JOB, 3)
        service.happen(JOB, "PAUSED")
        service.happen(JOB, "SUCCEEDED", summary=summary())
        assert waiting.result(30) == summary()
    service.faults.clear()
    assert client.job(JOB).get().summary_json == summary_object(summary())


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("FAILED", shardsgd.JobFailedError, "failed: so it ended"),
        ("CANCELLED", shardsgd.JobCancelledError, "was cancelled: so it ended"),
    ],
)
def test_a_job_that_did_not_succeed_is_an_error_with_its_summary(service, client, state, error, words):
    ended(service, state=state)
    job = client.job(JOB)
    for act in (job.wait, job.result):
        with pytest.raises(error, match=f"job {JOB} {words}") as caught:
            act()
        assert isinstance(caught.value, shardsgd.JobError)
        assert caught.value.summary == job.get().summary
        assert caught.value.exit_code == 1


def test_waiting_no_longer_than_said(service, client):
    service.add_job(JOB)
    with pytest.raises(shardsgd.WaitTimeoutError, match=r"has not ended after 0.3 s; it is QUEUED and goes on"):
        client.job(JOB).wait(0.3)
    with pytest.raises(TimeoutError):
        client.job(JOB).wait(0)


def test_a_summary_of_another_version_is_read_as_far_as_it_goes_or_refused(service, client):
    ended(service)
    told = summary_object(summary())
    service.jobs[JOB].summary.json = dumps(told | {"new": 1, "gradient_noise": told["gradient_noise"] | {"new": 2}})
    assert client.job(JOB).wait() == summary()
    older = {name: value for name, value in told["gradient_noise"].items() if not name.endswith(("_low", "_high"))}
    service.jobs[JOB].summary.json = dumps(told | {"gradient_noise": older})
    noise = replace(summary().gradient_noise, noise_scale_low=None, noise_scale_high=None)
    assert client.job(JOB).wait() == summary(gradient_noise=noise)
    for json in ("", "[]", "{}", "null"):
        service.jobs[JOB].summary.json = json
        with pytest.raises(shardsgd.RemoteError, match="another version"):
            client.job(JOB).wait()


def test_a_state_of_another_version_is_refused(service, client):
    service.add_job(JOB).state = 99
    with pytest.raises(shardsgd.RemoteError, match="a job in state 99"):
        client.job(JOB).get()


# Results.


def test_a_result_is_the_arrays_bit_for_bit(service, client):
    content = ended(service)
    result = client.job(JOB).result()
    assert equal(result.parameters, content)
    assert (result.job_id, result.summary) == (JOB, client.job(JOB).wait())


def test_a_broken_download_goes_on_where_it_broke(service, client, tmp_path):
    content = ended(service)
    size = len(service.parameters[JOB][0])
    # Each breaks one chunk further on, the last after the last byte, when nothing is left to ask for.
    service.faults += [Fault("DownloadParameters", messages=count) for count in (0, 0, 1, 2, 1)]
    last = -(-(size - 4000) // 1000)
    service.faults += [Fault("DownloadParameters", messages=last)]
    path = tmp_path / "parameters.safetensors"
    done = client.job(JOB).download(path)
    assert path.read_bytes() == service.parameters[JOB][0]
    assert done == shardsgd.Download(size, hashlib.sha256(path.read_bytes()).hexdigest(), parameters_sha256(content))
    assert service.calls["DownloadParameters"] <= 7


def test_a_download_that_breaks_after_its_last_byte_is_whole(service):
    content = ended(service)
    service.faults += [Fault("DownloadParameters", messages=-(-len(service.parameters[JOB][0]) // 1000))]
    with shardsgd.Client(service.address, patience_s=0) as client:
        assert equal(client.job(JOB).parameters(), content)


def test_other_parameters_after_a_break_are_fetched_from_their_beginning(service, client, tmp_path):
    ended(service)
    other = arrays(seed=1)

    class Swapping(list):
        def remove(self, fault):
            super().remove(fault)
            service.set_parameters(JOB, save(other), parameters_sha256(other))

    service.faults = Swapping([Fault("DownloadParameters", messages=2)])
    assert equal(client.job(JOB).parameters(), other)


def truncated(content, header):
    return content[:-100], header


def flipped(content, header):
    return bytes([*content[:-1], content[-1] ^ 1]), header


def longer(content, header):
    return content + b"\0", header


def other_arrays(content, header):
    content = save(arrays(seed=1))
    return content, pb.ParametersHeader(
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parameters_sha256=header.parameters_sha256,
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [(truncated, "ended after"), (flipped, "sha256 is not the promised one"), (longer, "goes on after its")],
)
def test_damaged_downloads_leave_nothing_behind(service, client, tmp_path, damage, message):
    ended(service)
    service.parameters[JOB] = damage(*service.parameters[JOB])
    path = tmp_path / "parameters.safetensors"
    path.write_text("what was there")
    with pytest.raises(shardsgd.TransferError, match=message):
        client.job(JOB).download(path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {path.name: "what was there"}


def test_arrays_that_are_not_those_of_the_job_are_refused(service, client):
    ended(service)
    service.parameters[JOB] = other_arrays(*service.parameters[JOB])
    with pytest.raises(shardsgd.TransferError, match="not those that the service promised"):
        client.job(JOB).parameters()


def test_what_is_no_safetensors_file_is_refused(service, client):
    ended(service)
    service.set_parameters(JOB, b"\xff" * 100)
    with pytest.raises(shardsgd.TransferError, match="not a safetensors file"):
        client.job(JOB).parameters()


def test_a_download_says_where_it_cannot_write(service, client, tmp_path):
    ended(service)
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "file", "cannot be written: No such file")):
        with pytest.raises(shardsgd.InputError, match=message):
            client.job(JOB).download(path)
    client.job(JOB).download(str(tmp_path / "file"))
    assert load_file(tmp_path / "file").keys() == arrays().keys()


# Steering and listing.


def test_a_job_is_steered(service, client):
    service.add_job(JOB)
    job = client.job(JOB)
    assert (job.pause().intent, job.resume().intent, job.cancel().intent) == ("PAUSE", "RUN", "CANCEL")
    assert job.scale(3).job_id == JOB
    job.delete()
    with pytest.raises(shardsgd.RefusedError) as caught:
        job.get()
    assert (caught.value.reason, caught.value.code) == ("JOB_NOT_FOUND", "NOT_FOUND")


def test_deleting_is_done_although_its_answer_was_lost(service, client):
    ended(service)
    service.faults += [Fault("DeleteJob", done=True)]
    client.job(JOB).delete()
    with pytest.raises(shardsgd.RefusedError):
        client.job(JOB).delete()


def test_requests_without_an_effect_are_tried_again_by_grpc(service, client):
    service.add_job(JOB)
    service.faults += [Fault("GetJob"), Fault("GetJob"), Fault("PauseJob", done=True)]
    assert client.job(JOB).get().job_id == JOB
    assert client.job(JOB).pause().intent == "PAUSE"


def test_jobs_come_page_by_page_and_the_newest_first(service, client):
    for number in range(7):
        service.add_job(f"toy-{number}", "RUNNING" if number % 2 else "PAUSED")
    assert [info.job_id for info in client.jobs()] == [f"toy-{number}" for number in range(6, -1, -1)]
    assert [info.job_id for info in client.jobs(["RUNNING"])] == ["toy-5", "toy-3", "toy-1"]
    before = service.calls["ListJobs"]
    assert next(client.jobs()).job_id == "toy-6"
    assert service.calls["ListJobs"] == before + 1
    with pytest.raises(shardsgd.InputError, match="DONE: not a state of jobs"):
        client.jobs(["DONE"])


def test_the_service_says_what_it_is(client):
    info = client.server_info()
    assert (info.version, info.workers_total, info.owner) == ("9.9", 4, "ada")
    assert (info.limits.open_jobs, info.limits.upload_bytes) == (5, None)


def test_the_token_travels_with_every_kind_of_request(service):
    ended(service)
    with shardsgd.Client(service.address, token="t0ken") as client:
        for act in (client.server_info, client.job(JOB).result, lambda: list(client.job(JOB).watch())):
            act()
            assert service.metadata["authorization"] == "Bearer t0ken"
        client.upload({"x": [1]})
        assert service.metadata["authorization"] == "Bearer t0ken"
    with shardsgd.Client(service.address) as client:
        client.server_info()
        assert "authorization" not in service.metadata


def test_many_threads_share_a_client(service, client):
    ended(service)
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda _: client.job(JOB).result(), range(24)))
        sequences = list(pool.map(lambda _: watched(client.job(JOB)), range(24)))
    assert all(equal(result.parameters, arrays()) for result in results)
    assert sequences == [list(range(1, 13))] * 24


def test_a_closed_client_says_so(service, client):
    service.add_job(JOB)
    watch = client.job(JOB).watch()
    next(watch)
    with ThreadPoolExecutor() as pool:
        rest = pool.submit(list, watch)
        client.close()
        with pytest.raises(shardsgd.InputError, match="closed"):
            rest.result(30)
    with pytest.raises(shardsgd.InputError, match="this client is closed"):
        client.server_info()
    client.close()
