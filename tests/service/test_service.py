"""The service as a user meets it: a process, a socket, real Ray, real files."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from safetensors.numpy import load
from service import START_S, Service, ended, job, processes_with, serving, stub_of, until

from shardsgd import read_spec, train
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec_messages import spec_from_message, spec_message

DIGITS = Path(__file__).parents[2] / "examples/digits.toml"


def create(stub, spec, **fields):
    return stub.CreateJob(pb.CreateJobRequest(spec=spec, **fields), timeout=10).job


def get(stub, job_id):
    return stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=10).job


def states(events):
    return [
        pb.JobState.Name(event.state_change.state).removeprefix("JOB_STATE_")
        for event in events
        if event.WhichOneof("event") == "state_change"
    ]


def parameters(stub, job_id, offset=0):
    header, *chunks = stub.DownloadParameters(
        pb.DownloadParametersRequest(job_id=job_id, offset_bytes=offset), timeout=30
    )
    return header.header, b"".join(part.chunk for part in chunks)


def upload(stub, content, *, sha256=None, size=None, chunk=1000, kind=pb.DATASET_FORMAT_NPZ):
    header = pb.DatasetHeader(
        sha256=hashlib.sha256(content).hexdigest() if sha256 is None else sha256,
        size_bytes=len(content) if size is None else size,
        format=kind,
    )
    parts = [pb.UploadDatasetRequest(header=header)]
    parts += [pb.UploadDatasetRequest(chunk=content[i : i + chunk]) for i in range(0, len(content), chunk)]
    return stub.UploadDataset(iter(parts), timeout=30)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


def code_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_a_job_ends_in_the_same_bits_as_without_a_service(stub, tmp_path):
    spec = read_spec(DIGITS, ["stop.epochs=3"])
    alone = train(spec, out=tmp_path / "alone")
    done, events = ended(stub, create(stub, spec_message(spec)).job_id)
    assert pb.JobState.Name(done.state) == "JOB_STATE_SUCCEEDED", done.reason
    assert done.summary.parameters_sha256 == alone.summary.parameters_sha256
    assert done.summary.validation_accuracy == alone.summary.validation["accuracy"]
    header, content = parameters(stub, done.job_id)
    assert header.parameters_sha256 == alone.summary.parameters_sha256
    assert (len(content), hashlib.sha256(content).hexdigest()) == (header.size_bytes, header.sha256)
    arrays = load(content)
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: array.tobytes() for name, array in alone.parameters.items()
    }
    assert parameters(stub, done.job_id, offset=1000)[1] == content[1000:]
    assert [event.sequence for event in events] == list(range(1, done.last_sequence + 1))
    assert states(events) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    steps = [event.metrics for event in events if event.WhichOneof("event") == "metrics"]
    assert [step.step for step in steps] == sorted({step.step for step in steps})
    assert steps[-1].step == done.summary.steps - 1
    assert sum(1 + step.steps_left_out for step in steps) == done.summary.steps
    assert sum(event.WhichOneof("event") == "validation" for event in events) == 3


def test_the_spec_of_a_job_is_complete(stub):
    made = create(stub, job(epochs=1))
    spec = spec_from_message(made.spec)
    assert spec.stop.epochs == 1
    assert spec.batch.shards == 8
    ended(stub, made.job_id)


def test_a_retry_is_the_same_job_and_another_request_an_error(stub):
    request_id = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: create(stub, job(epochs=1), request_id=request_id).job_id, range(16)))
    assert len(set(made)) == 1
    assert code_of(lambda: create(stub, job(epochs=2), request_id=request_id)) is grpc.StatusCode.ALREADY_EXISTS
    ended(stub, made[0])


def test_a_paused_job_goes_on_to_the_same_bits(stub, tmp_path):
    spec = job(epochs=400)
    alone = train(spec_from_message(spec), out=tmp_path / "alone")
    job_id = create(stub, spec).job_id
    for _ in range(2):
        until_metrics(stub, job_id)
        asked = stub.PauseJob(pb.PauseJobRequest(job_id=job_id), timeout=10).job
        assert asked.intent == pb.INTENT_PAUSE
        paused = until(stub, job_id, pb.JOB_STATE_PAUSED, after=asked.last_sequence)
        assert parameters(stub, job_id)[0].parameters_sha256 == paused.state_change.summary.parameters_sha256
        resumed = stub.ResumeJob(pb.ResumeJobRequest(job_id=job_id), timeout=10).job
        assert resumed.intent == pb.INTENT_RUN
    done, events = ended(stub, job_id)
    assert done.summary.parameters_sha256 == alone.summary.parameters_sha256
    steps = [event.metrics.step for event in events if event.WhichOneof("event") == "metrics"]
    assert steps == sorted(set(steps)), "no step is told twice"


def until_metrics(stub, job_id):
    after = get(stub, job_id).last_sequence
    for event in stub.WatchJob(pb.WatchJobRequest(job_id=job_id, after_sequence=after), timeout=60):
        if event.WhichOneof("event") == "metrics":
            return


def test_a_cancelled_job_keeps_what_it_had_learned(stub):
    job_id = create(stub, job(epochs=10**6)).job_id
    until_metrics(stub, job_id)
    stub.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=10)
    done, events = ended(stub, job_id)
    assert states(events)[-1] == "CANCELLED"
    assert done.summary.steps > 0
    assert parameters(stub, job_id)[0].parameters_sha256 == done.summary.parameters_sha256
    assert code_of(lambda: stub.ResumeJob(pb.ResumeJobRequest(job_id=job_id), timeout=10)) is (
        grpc.StatusCode.FAILED_PRECONDITION
    )


def test_a_deleted_job_is_gone_with_its_files(stub, shared):
    job_id = create(stub, job(epochs=1)).job_id
    assert code_of(lambda: stub.DeleteJob(pb.DeleteJobRequest(job_id=job_id), timeout=10)) is (
        grpc.StatusCode.FAILED_PRECONDITION
    )
    ended(stub, job_id)
    folder = shared.store / "jobs" / job_id
    assert folder.is_dir()
    stub.DeleteJob(pb.DeleteJobRequest(job_id=job_id), timeout=10)
    assert not folder.exists()
    assert code_of(lambda: get(stub, job_id)) is grpc.StatusCode.NOT_FOUND


def test_an_uploaded_dataset_is_trained_on_and_kept_once(stub, shared, tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(500, 4)).astype(np.float32)
    content = npz(tmp_path / "data.npz", x=x, label=(x[:, 0] > 0).astype(np.int64))
    first = upload(stub, content)
    assert (first.source, first.existed) == (f"sha256:{hashlib.sha256(content).hexdigest()}", False)
    assert upload(stub, content).existed
    assert len(list((shared.store / "datasets").glob("*.npz"))) == 1
    spec = job(epochs=5, rows=64)
    spec.data.CopyFrom(pb.Data(source=first.source))
    done, _ = ended(stub, create(stub, spec).job_id)
    assert done.spec.data.source == first.source
    local = spec_from_message(spec)
    local = local.model_copy(update={"data": local.data.model_copy(update={"source": str(tmp_path / "data.npz")})})
    assert done.summary.parameters_sha256 == train(local, out=tmp_path / "alone").summary.parameters_sha256


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sha256": "0" * 64}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"sha256": "../../etc/passwd"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"size": 1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"size": 10**6}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"size": 2**62}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"size": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"kind": pb.DATASET_FORMAT_UNSPECIFIED}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_an_upload_that_is_not_what_it_says_leaves_nothing(stub, shared, change, code):
    before = sorted((shared.store / "datasets").iterdir())
    assert code_of(lambda: upload(stub, os.urandom(5000), **change)) is code
    assert sorted((shared.store / "datasets").iterdir()) == before


def test_everything_wrong_is_said_at_once_and_nothing_is_made(stub):
    spec = job(epochs=0, rows=-1)
    spec.optimizer.learning_rate = float("nan")
    before = len(stub.ListJobs(pb.ListJobsRequest(page_size=500), timeout=10).jobs)
    with pytest.raises(grpc.RpcError) as caught:
        create(stub, spec)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for name in ("stop.epochs", "batch.size", "optimizer.learning_rate"):
        assert name in caught.value.details()
    assert len(stub.ListJobs(pb.ListJobsRequest(page_size=500), timeout=10).jobs) == before


@pytest.mark.parametrize("source", ["/etc/passwd", "../x.csv", "sha256:1", f"sha256:{'0' * 64}", "digitz", "/dev/zero"])
def test_data_that_may_not_be_read_or_is_not_there_is_refused(stub, source):
    spec = job()
    spec.data.source = source
    assert code_of(lambda: create(stub, spec)) in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def test_more_workers_than_there_are_are_refused_with_the_numbers(stub):
    with pytest.raises(grpc.RpcError) as caught:
        create(stub, job(count=3))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "3" in caught.value.details()
    assert "2" in caught.value.details()


def test_data_that_turns_out_to_be_wrong_fails_the_job_with_the_reason(stub, tmp_path):
    source = upload(stub, npz(tmp_path / "bad.npz", x=np.ones((4, 2)))).source
    spec = job()
    spec.data.CopyFrom(pb.Data(source=source))
    done, _ = ended(stub, create(stub, spec).job_id)
    assert done.state == pb.JOB_STATE_FAILED
    assert "label" in done.reason
    assert "Traceback" not in done.reason


def test_jobs_wait_for_the_workers_they_ask_for_and_priorities_go_first(stub):
    blocker = create(stub, job("blocker", epochs=10**6, count=2)).job_id
    until_metrics(stub, blocker)
    low = create(stub, job("low", epochs=1)).job_id
    high = create(stub, job("high", epochs=1), priority=5).job_id
    assert get(stub, low).state == pb.JOB_STATE_QUEUED
    stub.CancelJob(pb.CancelJobRequest(job_id=blocker), timeout=10)
    done = [ended(stub, each)[0] for each in (low, high)]
    assert done[1].start_time.ToNanoseconds() < done[0].start_time.ToNanoseconds()


def test_two_jobs_side_by_side(stub):
    both = [create(stub, job(f"side-{i}", epochs=10**6)).job_id for i in range(2)]
    for job_id in both:
        until_metrics(stub, job_id)
    assert {get(stub, job_id).state for job_id in both} == {pb.JOB_STATE_RUNNING}
    for job_id in both:
        stub.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=10)
        ended(stub, job_id)


def test_pages_hold_every_job_once_newest_first(stub):
    made = [create(stub, job(f"page-{i}", epochs=1)).job_id for i in range(5)]
    listed, token = [], ""
    while True:
        page = stub.ListJobs(pb.ListJobsRequest(page_size=2, page_token=token), timeout=10)
        listed += [each.job_id for each in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert listed[:5] == made[::-1]
    assert len(set(listed)) == len(listed)
    for job_id in made:
        ended(stub, job_id)
    states_asked = pb.ListJobsRequest(states=[pb.JOB_STATE_RUNNING], page_token="x")
    assert code_of(lambda: stub.ListJobs(states_asked, timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT


def test_two_hundred_watchers_of_one_job(stub):
    job_id = create(stub, job(epochs=300)).job_id
    with ThreadPoolExecutor(200) as threads:
        watched = list(threads.map(lambda _: [e.sequence for e in ended(stub, job_id, timeout=100)[1]], range(200)))
    last = get(stub, job_id).last_sequence
    assert all(each == list(range(1, last + 1)) for each in watched)


def test_health_and_reflection(shared):
    with grpc.insecure_channel(shared.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "shardsgd.v1.TrainingService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=10)
        names = {each.name for each in listed.list_services_response.service}
        assert "shardsgd.v1.TrainingService" in names


def test_a_second_service_on_the_same_store_or_port_is_refused(shared, tmp_path):
    for store, address in ((shared.store, "127.0.0.1:0"), (tmp_path / "other", shared.address)):
        command = [sys.executable, "-m", "shardsgd", "serve", "--store", store, "--address", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr


def test_a_killed_step_loop_costs_its_job_nothing_and_the_others_neither(stub, shared, tmp_path):
    spec, other = job("victim", epochs=600), job("other", epochs=300)
    alone = train(spec_from_message(spec), out=tmp_path / "alone").summary.parameters_sha256
    victim, bystander = create(stub, spec).job_id, create(stub, other).job_id
    until_metrics(stub, victim)
    pids = [pid for pid, line in processes_with("shardsgd-loop victim") if line.startswith("shardsgd-loop victim")]
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGSEGV)
    done, events = ended(stub, victim)
    assert "SIGSEGV" in " ".join(event.state_change.reason for event in events)
    assert done.summary.parameters_sha256 == alone
    assert get(stub, bystander).state in (pb.JOB_STATE_RUNNING, pb.JOB_STATE_SUCCEEDED)
    assert states(ended(stub, bystander)[1]).count("STARTING") == 1


def test_after_kill_nine_everything_accepted_goes_on(tmp_path):
    spec = job(epochs=300)
    spec.checkpoint.every_seconds = 0.5
    alone = train(spec_from_message(spec), out=tmp_path / "alone").summary.parameters_sha256
    service = Service(tmp_path / "store")
    with stub_of(service.address) as stub:
        ids = [create(stub, spec).job_id for _ in range(4)]
        until_metrics(stub, ids[0])
        seen = get(stub, ids[0]).last_sequence
        service.kill()
    deadline = time.monotonic() + 10
    while (left := processes_with(str(service.store))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    with serving(tmp_path / "store") as again, stub_of(again.address) as stub:
        for job_id in ids:
            done, events = ended(stub, job_id)
            assert done.summary.parameters_sha256 == alone
            assert [event.sequence for event in events] == list(range(1, done.last_sequence + 1))
            steps = [event.metrics.step for event in events if event.WhichOneof("event") == "metrics"]
            assert steps == sorted(set(steps))
            if job_id == ids[0]:
                assert done.last_sequence > seen
                assert "the service was restarted" in [event.state_change.reason for event in events]


def test_sigterm_drains_and_a_watcher_is_told_where_to_go_on(tmp_path):
    service = Service(tmp_path / "store")
    with stub_of(service.address) as stub:
        job_id = create(stub, job(epochs=10**6)).job_id
        until_metrics(stub, job_id)
        stream = stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=60)
        last = next(stream).sequence
        service.process.send_signal(signal.SIGTERM)
        seen = [last]
        with pytest.raises(grpc.RpcError) as caught:
            seen.extend(event.sequence for event in stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert f"after_sequence = {seen[-1]}" in caught.value.details()
    assert service.process.wait(60) == 0
    service.process.stdout.close()
    assert processes_with(str(service.store)) == []
    assert (service.store / "jobs" / job_id / "summary.json").is_file(), "it left a checkpoint and a summary"
    messages = [json.loads(line) for line in service.errors().splitlines()]
    assert all("event" in message for message in messages)
    with serving(tmp_path / "store") as again, stub_of(again.address) as stub:
        until_metrics(stub, job_id)
        stub.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=10)
        assert states(ended(stub, job_id)[1])[-1] == "CANCELLED"
