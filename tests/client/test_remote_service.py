"""The client and the real service together: what a user is promised, through pauses, kills and restarts."""

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from service import Service, serving

import shardsgd
from shardsgd import JobSpec
from shardsgd.model.layout import parameters_sha256

SHARDSGD = Path(sys.executable).with_name("shardsgd")
DIGITS = Path(__file__).parents[2] / "examples/digits.toml"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("service") / "store", workers=2) as service:
        yield service


@pytest.fixture
def client(service):
    with shardsgd.Client(service.address) as client:
        yield client


@pytest.fixture(scope="module")
def undisturbed(service):
    """How a long job ends that is left alone."""
    with shardsgd.Client(service.address) as client:
        return client.submit(long("undisturbed")).wait(60)


def toy(name="toy", **sections):
    """A job of many small steps."""
    fields = {
        "data": {"source": "iris"},
        "model": {"kind": "linear"},
        "workers": {"count": 1, "max": 2},
        "batch": {"size": 32},
        "stop": {"steps": 40},
    }
    return JobSpec(name=name, **fields | sections)


def long(name, steps=1500):
    return toy(name, stop={"steps": steps})


def run(*arguments, code=0):
    done = subprocess.run([SHARDSGD, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def test_a_submitted_job_ends_in_the_bits_of_a_local_run(service):
    there = json.loads(run("submit", DIGITS, "--wait", "--json", "--server", service.address))
    here = json.loads(run("train", DIGITS, "--json"))
    assert there["parameters_sha256"] == here["parameters_sha256"]
    assert there.keys() == here.keys()
    assert there["state"] == "SUCCEEDED"


def test_arrays_go_there_and_parameters_come_back(client, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3))
    data = {"x": x, "label": (x.sum(axis=1) > 0).astype(int)}
    job = client.submit(toy(objective={"loss": "logistic"}), data=data)
    result = job.result(60)
    assert parameters_sha256(result.parameters) == result.summary.parameters_sha256
    assert result.parameters["layer0.weight"].shape == (3, 1)
    job.download(tmp_path / "file")
    assert load_file(tmp_path / "file").keys() == result.parameters.keys()
    info = job.get()
    assert (info.state, info.ended, info.summary) == ("SUCCEEDED", True, result.summary)
    assert info.summary_json["parameters_sha256"] == result.summary.parameters_sha256
    assert info.created_at <= info.started_at <= info.ended_at
    assert info.spec.data.source.startswith("sha256:")
    assert info.spec.stop.steps == 40


def test_events_tell_the_whole_run(client):
    job = client.submit(toy())
    events = list(job.watch())
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    states = [event.state for event in events if isinstance(event, shardsgd.StateEvent)]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    steps = [event for event in events if isinstance(event, shardsgd.StepEvent)]
    assert steps[-1].record.step == 39
    assert sum(1 + event.steps_left_out for event in steps) == 40
    assert any(isinstance(event, shardsgd.ValidationEvent) for event in events)
    assert events[-1].summary == job.wait()
    assert list(job.watch(after_sequence=len(events))) == []
    assert [event.sequence for event in job.watch(after_sequence=3)] == list(range(4, len(events) + 1))


def states_until(job, *states):
    for event in job.watch():
        if isinstance(event, shardsgd.StateEvent) and event.state in states:
            return event
    raise AssertionError("the job ended in another state")


def test_pauses_and_scaling_change_no_bit(client, undisturbed):
    job = client.submit(long("disturbed"))
    states_until(job, "RUNNING")
    assert job.scale(2).state == "RUNNING"
    job.pause()
    paused = states_until(job, "PAUSED")
    assert paused.summary.steps < 1500
    assert parameters_sha256(job.parameters()) == paused.summary.parameters_sha256
    with pytest.raises(shardsgd.WaitTimeoutError):
        job.wait(0.2)
    job.resume()
    summary = job.wait(60)
    assert (summary.parameters_sha256, summary.steps) == (undisturbed.parameters_sha256, 1500)


def test_a_cancelled_job_leaves_what_it_had_and_can_be_deleted(client):
    job = client.submit(long("cancelled", 1_000_000))
    for event in job.watch():
        if isinstance(event, shardsgd.StepEvent):
            break
    with pytest.raises(shardsgd.RefusedError, match="cancel it first") as caught:
        job.delete()
    assert caught.value.reason == "ILLEGAL_STATE"
    job.cancel()
    with pytest.raises(shardsgd.JobCancelledError) as caught:
        job.wait(60)
    assert parameters_sha256(job.parameters()) == caught.value.summary.parameters_sha256
    job.delete()
    with pytest.raises(shardsgd.RefusedError) as caught:
        job.get()
    assert caught.value.reason == "JOB_NOT_FOUND"


def test_a_job_that_fails_says_why(client):
    spec = toy("diverges", objective={"loss": "squared_error"}, optimizer={"learning_rate": 1e30})
    with pytest.raises(shardsgd.JobFailedError, match="diverged in step") as caught:
        client.submit(spec).result(60)
    assert caught.value.summary.state == "FAILED"


def test_what_the_service_refuses_is_told_as_it_would_be_here(client):
    with pytest.raises(shardsgd.SpecError) as caught:
        client.submit(toy(data={"source": "nowhere"}))
    assert [problem.path for problem in caught.value.problems] == ["data.source"]
    with pytest.raises(shardsgd.RefusedError, match="workers") as caught:
        client.submit(toy(workers={"count": 9}, batch={"size": 32, "shards": 16}))
    assert caught.value.reason == "TOO_MANY_WORKERS"
    with pytest.raises(shardsgd.RefusedError) as caught:
        client.submit(toy(data={"source": "/etc/passwd.csv"}))
    assert caught.value.reason == "DATA_NOT_ALLOWED"
    with pytest.raises(shardsgd.RefusedError) as caught:
        client.submit(toy(), priority=101)
    assert [field.path for field in caught.value.fields] == ["priority"]
    job = client.submit(toy(), request_id="0" * 32)
    with pytest.raises(shardsgd.RefusedError) as caught:
        client.submit(toy("another"), request_id="0" * 32)
    assert caught.value.reason == "REQUEST_ID_REUSED"
    job.wait(60)


def test_jobs_are_listed_through_all_pages(client):
    first = client.submit(toy("listed"))
    first.wait(60)
    listed = [info.job_id for info in islice(client.jobs(["SUCCEEDED"]), 3)]
    assert listed[0] == first.id
    info = client.server_info()
    assert (info.version, info.workers_total, info.owner) == ("0.1.0", 2, "local")
    assert info.uptime_s > 0


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_a_watch_goes_on_through_the_death_of_the_service(tmp_path, undisturbed, ending):
    store = tmp_path / "store"
    first = Service(store, workers=1)
    second = None
    try:
        with shardsgd.Client(first.address, patience_s=100) as there:
            job = there.submit(long("watched"))
            sequences, lost = [], []
            for event in job.watch(on_lost=lost.append):
                sequences.append(event.sequence)
                if second is None and isinstance(event, shardsgd.StepEvent) and event.record.step > 100:
                    getattr(first, ending)()
                    second = Service(store, "--address", first.address, workers=1)
            assert lost
            assert sequences == list(range(1, len(sequences) + 1))
            summary = job.result().summary
            assert (summary.parameters_sha256, summary.steps) == (undisturbed.parameters_sha256, 1500)
    finally:
        for each in (first, second):
            if each is not None and each.process.poll() is None:
                each.stop()


def test_owners_see_their_own_jobs(tmp_path):
    from shardsgd.coordinator.service.access import make_token, token_line

    (ada, ada_hash), (grace, grace_hash) = make_token(), make_token()
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{token_line('ada', 'user', ada_hash)}\n{token_line('grace', 'user', grace_hash)}\n")
    (tmp_path / "grace").write_text(grace)
    with serving(tmp_path / "store", "--token-file", tokens, workers=1) as service:
        with shardsgd.Client(service.address, token=ada) as client:
            job = client.submit(toy())
            assert job.get().owner == "ada"
        with shardsgd.Client(service.address, token=grace) as client:
            assert list(client.jobs()) == []
            with pytest.raises(shardsgd.RefusedError) as caught:
                client.job(job.id).get()
            assert caught.value.reason == "JOB_NOT_FOUND"
        assert json.loads(run("jobs", "--json", "--server", service.address, "--token-file", tmp_path / "grace")) == []
        for token in (None, "wrong"):
            with (
                shardsgd.Client(service.address, token=token) as client,
                pytest.raises(shardsgd.RefusedError) as caught,
            ):
                client.server_info()
            assert caught.value.reason == "UNAUTHENTICATED"


def blocks(language):
    return re.findall(
        rf"```{language}\n(.*?)```", (Path(__file__).parents[2] / "docs/client.md").read_text(), re.DOTALL
    )


@pytest.mark.parametrize("number", range(2))
def test_the_examples_of_the_docs_run(service, number):
    code = blocks("python")[number].replace("127.0.0.1:50051", service.address)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = ["SUCCEEDED", "(4, 64)"] if number == 0 else ["INVALID_ARGUMENT INVALID_ARGUMENT", "priority = 1000"]
    assert all(text in done.stdout for text in expected), done.stdout
