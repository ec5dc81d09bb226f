"""The commands for a service as a user meets them: what they print where, and what they exit with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from fake_service import Fault, fake_service, summary, summary_object
from safetensors.numpy import save
from typer.testing import CliRunner

import shardsgd
from shardsgd.cli import app
from shardsgd.coordinator.service.problems import Reason, ServiceError
from shardsgd.errors import FieldProblem
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec_messages import spec_from_message

SHARDSGD = Path(sys.executable).with_name("shardsgd")
ON_TERMINAL = Path(__file__).parents[1] / "support/on_terminal.py"
NOWHERE = "127.0.0.1:1"
JOB = "digits-a1b2c3d4e5f6"
SPEC = 'name = "digits"\n[data]\nsource = "digits"\n'
COMMANDS = {
    "submit": ["job.toml"],
    "jobs": [],
    "show": [JOB],
    "watch": [JOB],
    "pause": [JOB],
    "resume": [JOB],
    "scale": [JOB, "2"],
    "cancel": [JOB],
    "delete": [JOB, "--yes"],
    "download": [JOB],
    "server": [],
}


@pytest.fixture
def service(monkeypatch):
    with fake_service() as (service, address):
        service.address = address
        monkeypatch.setenv("SHARDSGD_SERVER", address)
        yield service


@pytest.fixture(autouse=True)
def _job_file(tmp_path, _in_an_empty_folder):
    (tmp_path / "job.toml").write_text(SPEC)


def run(*arguments, code=0, **options):
    """A command within this process; its stdout and stderr."""
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, **options)
    assert done.exit_code == code, f"{done.exit_code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def start(*arguments, **options):
    """A command in a process of its own."""
    command = [SHARDSGD, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ends(service, job_id=JOB, state="SUCCEEDED", reason="", **changes):
    """A job that has ended, with parameters."""
    service.add_job(job_id, name="digits")
    service.happen(job_id, "RUNNING")
    service.steps(job_id, 3)
    service.happen(job_id, pb.Validation(step=3, epoch=1, loss=0.25, accuracy=0.75))
    service.happen(job_id, pb.Incident(step=3, kind="lost", worker=1, reason="its connection closed"))
    service.happen(job_id, state, reason, summary(name="digits", **changes))
    service.set_parameters(job_id, save({"layer0.weight": np.ones((2, 3), np.float32)}), "0123456789abcdef" * 4)


def ending(service, state="SUCCEEDED", reason="30 epochs are done", /, **changes):
    """From now on, every job that is submitted ends so at once."""

    def end(job_id):
        service.happen(job_id, "RUNNING")
        service.steps(job_id, 2)
        service.happen(job_id, state, reason, summary(**changes))

    service.then = end


def without_terminal_codes(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


# What they have in common.


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_service_every_command_says_so_and_exits_with_1(command):
    stdout, stderr = run(command, *COMMANDS[command], "--server", NOWHERE, code=1)
    assert stdout == ""
    assert stderr.startswith(f"error: {NOWHERE}: the service cannot be reached: nothing listens there")
    assert "SHARDSGD_SERVER" in stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refusal_of_the_service_is_one_message(service, command):
    # The fake gives way to each command's first request.
    method = {"submit": "GetServerInfo", "jobs": "ListJobs", "server": "GetServerInfo"}.get(command, "GetJob")
    service.faults = [Fault(method, error=ServiceError(Reason.ILLEGAL_STATE, "it may not be"))]
    assert run(command, *COMMANDS[command], code=2) == ("", "error: it may not be\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_fault_of_the_service_is_one_message(service, command):
    method = {"submit": "CreateJob", "jobs": "ListJobs", "server": "GetServerInfo"}.get(command, "GetJob")
    service.faults = [Fault(method, error=ServiceError(Reason.INTERNAL, "incident 123"))]
    assert run(command, *COMMANDS[command], code=1) == ("", "error: incident 123\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--server", "localhost"], "expected HOST:PORT"),
        (["--token-file", "missing"], "missing: cannot be read as a token file"),
        (["--tls-ca", "job.toml"], "holds no certificates"),
        (["--tls-cert", "job.toml"], "belong together"),
        (["--tls-ca", "job.toml", "--insecure"], "insecure means no TLS"),
    ],
)
def test_a_connection_that_cannot_work_exits_with_2(service, options, message):
    assert message in run("jobs", *options, code=2)[1]


def test_a_token_comes_from_a_file_and_never_from_the_command_line(service, tmp_path):
    (tmp_path / "token").write_text("t0ken\n")
    run("jobs", "--token-file", tmp_path / "token")
    assert service.metadata["authorization"] == "Bearer t0ken"
    run("jobs", env={"SHARDSGD_TOKEN_FILE": str(tmp_path / "token")})
    assert service.metadata["authorization"] == "Bearer t0ken"
    run("jobs")
    assert "authorization" not in service.metadata
    run("jobs", "--token", "t0ken", code=2)


def test_the_command_line_stays_light_until_it_needs_a_service():
    script = (
        "import sys, shardsgd.cli; print([name for name in ('grpc', 'ray', 'jax', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# submit


def test_submit_says_how_to_follow_the_job(service):
    stdout, stderr = run("submit", "job.toml", "--set", "stop.epochs=3", "--workers", 4, "--priority", 7)
    assert (stdout, stderr) == ("submitted toy-1; `shardsgd watch toy-1` follows it\n", "")
    (request,) = service.requests
    spec = spec_from_message(request.spec)
    assert (spec.name, spec.data.source, spec.stop.epochs, spec.workers.count) == ("digits", "digits", 3, 4)
    assert request.priority == 7


def test_a_service_that_was_named_is_named_again(service, monkeypatch):
    monkeypatch.delenv("SHARDSGD_SERVER")
    stdout, _ = run("submit", "job.toml", "--server", service.address)
    assert f"`shardsgd watch toy-1 --server {service.address}`" in stdout


def test_submit_json_is_the_job(service):
    stdout, stderr = run("submit", "job.toml", "--json")
    job = json.loads(stdout)
    assert (job["job_id"], job["state"], job["summary"], stderr) == ("toy-1", "QUEUED", None, "")
    assert job["created_at"] == "2023-11-14T22:13:20Z"
    assert shardsgd.JobSpec(**job["spec"]) == shardsgd.read_spec(Path("job.toml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.toml"], "missing.toml: no such job file"),
        (["job.toml", "--workers", "0"], "workers.count = 0: must be an integer, at least 1"),
        (["job.toml", "--set", "optimizer.learning_rate=-1"], "optimizer.learning_rate = -1"),
        (["job.toml", "--priority", "101"], "less than or equal to 100"),
        (["job.toml", "--set", "data.source=folder/"], "a folder cannot be uploaded"),
    ],
)
def test_what_is_wrong_here_never_reaches_the_service(service, tmp_path, arguments, message):
    (tmp_path / "folder").mkdir()
    stdout, stderr = run("submit", *arguments, code=2)
    assert (stdout, service.calls["CreateJob"]) == ("" if "folder" not in message else "uploading folder\n", 0)
    assert message in " ".join(without_terminal_codes(stderr).split())


def test_fields_that_the_service_refuses_are_all_listed(service):
    fields = (FieldProblem("data.source", '"x"', "no such set"), FieldProblem("batch.size", "", "too large"))
    service.faults = [Fault("CreateJob", error=ServiceError(Reason.INVALID_SPEC, "two", fields=fields))]
    assert run("submit", "job.toml", code=2)[1] == (
        'error: job spec: 2 problems\n  data.source = "x": no such set\n  batch.size: too large\n'
    )


def test_a_file_of_this_machine_is_uploaded(service, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/rows.csv").write_text("a,label\n1,2\n")
    (tmp_path / "jobs/job.toml").write_text('[data]\nsource = "rows.csv"\n')
    stdout, stderr = run("submit", "jobs/job.toml")
    assert (stdout.splitlines()[0], stderr) == ("uploading rows.csv", "")
    ((sha256, content),) = service.datasets.items()
    assert content == b"a,label\n1,2\n"
    assert service.requests[0].spec.data.source == f"sha256:{sha256}"


@pytest.mark.parametrize("source", ["rows.csv", "../rows.csv", "/data/rows.csv", 'a "b".csv'])
def test_no_upload_means_a_path_of_the_service_as_it_is_written(service, tmp_path, source):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/rows.csv").touch()
    (tmp_path / "jobs/job.toml").write_text(f"[data]\nsource = '{source}'\n")
    assert tomllib.loads((tmp_path / "jobs/job.toml").read_text())["data"]["source"] == source
    assert run("submit", "jobs/job.toml", "--no-upload")[1] == ""
    run("submit", "jobs/job.toml", "--no-upload", "--set", "data.source=other.csv")
    assert [request.spec.data.source for request in service.requests] == [source, "other.csv"]
    assert not service.datasets


def test_a_path_that_is_not_here_is_one_of_the_service_and_that_is_said(service):
    _, stderr = run("submit", "job.toml", "--set", "data.source=/srv/rows.csv", "--json")
    assert stderr == "/srv/rows.csv: not on this machine, so a path of the service's\n"
    assert service.requests[0].spec.data.source == "/srv/rows.csv"


def test_submit_wait_ends_like_train(service):
    ending(service)
    stdout, stderr = run("submit", "job.toml", "--wait")
    assert stderr == ""
    lines = stdout.splitlines()
    assert lines[:2] == ["queued", "training"]
    for figure in (
        "SUCCEEDED: 30 epochs are done",
        "accuracy 97.36%",
        "sha256 0123456789abcdef",
        "shardsgd download toy-1",
    ):
        assert figure in stdout
    assert max(map(len, lines)) <= 80


def test_submit_wait_json_is_exactly_the_summary(service):
    ending(service)
    stdout, stderr = run("submit", "job.toml", "--wait", "--json")
    assert (json.loads(stdout), stderr) == (summary_object(summary()), "")


@pytest.mark.parametrize(("state", "words"), [("FAILED", "failed"), ("CANCELLED", "was cancelled")])
def test_submit_wait_of_a_job_that_does_not_succeed_exits_with_1(service, state, words):
    ending(service, state, "it had to be so", state="FAILED")
    stdout, stderr = run("submit", "job.toml", "--wait", "--json", code=1)
    assert json.loads(stdout) == summary_object(summary(state="FAILED"))
    assert stderr == f"error: job toy-1 {words}: it had to be so\n"
    assert "SUCCEEDED" not in run("submit", "job.toml", "--wait", code=1)[0]


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(service):
    command = start("submit", "job.toml", "--wait")
    assert command.stdout.readline() == "queued\n"
    command.send_signal(signal.SIGINT)
    stdout, stderr = command.communicate(timeout=30)
    assert (command.returncode, stdout) == (130, ""), stderr
    assert stderr == "job toy-1 goes on: `shardsgd watch toy-1` follows it, `shardsgd cancel toy-1` ends it\n"
    assert service.jobs["toy-1"].intent == pb.INTENT_RUN


# jobs and show


def many(service):
    service.add_job("a-name-of-24-letters-aaa-a1b2c3d4e5f6", "PAUSED")
    service.add_job("b-a1b2c3d4e5f6", "RUNNING")
    service.happen("b-a1b2c3d4e5f6", pb.Metrics(step=1233, loss=0.0123456, fraction_done=0.437, samples_per_second=5))
    service.jobs["b-a1b2c3d4e5f6"].intent = pb.INTENT_CANCEL
    service.add_job("c-a1b2c3d4e5f6", "QUEUED", queue_position=2)
    ends(service, "d-a1b2c3d4e5f6")


def test_jobs_are_a_line_each_and_fit_80_columns(service):
    many(service)
    stdout, _ = run("jobs")
    lines = [re.split(r"  +", line.strip()) for line in stdout.splitlines()]
    assert lines[0] == ["JOB", "STATE", "DONE", "LOSS", "CREATED"]
    assert [line[:-1] for line in lines[1:]] == [
        ["d-a1b2c3d4e5f6", "SUCCEEDED", "100%", "0.02341"],
        ["c-a1b2c3d4e5f6", "QUEUED, 2 before it"],
        ["b-a1b2c3d4e5f6", "RUNNING, cancelling", "43%", "0.01235"],
        ["a-name-of-24-letters-aaa-a1b2c3d4e5f6", "PAUSED"],
    ]
    assert max(len(line.rstrip()) for line in stdout.splitlines()) <= 100
    narrow = on_a_terminal("jobs", columns=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert all(job_id in narrow for job_id in service.jobs), "an id that is torn cannot be copied"


def test_jobs_of_a_state(service):
    many(service)
    stdout, _ = run("jobs", "--state", "running", "--state", "PAUSED", "--json")
    assert [job["state"] for job in json.loads(stdout)] == ["RUNNING", "PAUSED"]
    assert run("jobs", "--state", "failed") == ("", "no jobs in state FAILED\n")
    assert run("jobs", "--state", "failed", "--json") == ("[]\n", "")
    assert len(json.loads(run("jobs", "--limit", 3, "--json")[0])) == 3
    run("jobs", "--state", "done", code=2)


def test_owners_are_shown_where_there_are_more_than_one(service):
    many(service)
    assert "OWNER" not in run("jobs")[0]
    service.jobs["b-a1b2c3d4e5f6"].owner = "grace"
    stdout, _ = run("jobs")
    assert [line.split()[-1] for line in stdout.splitlines()] == ["OWNER", "ada", "ada", "grace", "ada"]


def test_show_tells_where_a_job_stands(service):
    many(service)
    stdout, _ = run("show", "b-")
    assert max(map(len, stdout.splitlines())) <= 80
    for figure in ("b-a1b2c3d4e5f6", "RUNNING, cancelling", "step 1,233", "43% done", "0.01235", "5 samples/s", "iris"):
        assert figure in stdout
    stdout, _ = run("show", "d-")
    assert "SUCCEEDED: 30 epochs are done" in stdout
    assert "`" not in stdout
    assert "shardsgd download d-a1b2c3d4e5f6" in stdout
    shown = json.loads(run("show", "d-", "--json")[0])
    assert shown["summary"] == summary_object(summary(name="digits"))
    assert shown["progress"]["step"] == 2


def test_a_job_is_found_by_a_beginning_that_no_other_has(service):
    many(service)
    service.add_job("c-a1b2ffffffff")
    assert json.loads(run("show", "c-a1b2c", "--json")[0])["job_id"] == "c-a1b2c3d4e5f6"
    assert run("show", "c-", code=2)[1] == "error: c-: more than one job begins so: c-a1b2ffffffff, c-a1b2c3d4e5f6\n"
    assert run("show", "x", code=2)[1] == "error: 'x': you have no such job\n"
    assert "JOB is empty" in run("show", "", code=2)[1]
    # A whole id is never taken for the beginning of another.
    service.add_job("c-a1b2c3d4e5f6-too")
    assert json.loads(run("show", "c-a1b2c3d4e5f6", "--json")[0])["job_id"] == "c-a1b2c3d4e5f6"


# watch


def test_watch_shows_what_train_would_and_ends_with_the_summary(service):
    ends(service)
    service.faults = [Fault("WatchJob", messages=3)]
    stdout, stderr = run("watch", "digits")
    assert stderr == ""
    lines = stdout.splitlines()
    assert lines[:2] == ["queued", "training"]
    assert f"{service.address}: the service cannot be reached: on purpose; trying again" in lines
    assert "step 3  epoch 1  validation loss 0.25  accuracy 75.00%" in lines
    assert "worker 1 lost in step 3: its connection closed" in lines
    assert "SUCCEEDED: 30 epochs are done" in stdout


def test_watch_json_is_an_event_a_line(service):
    ends(service, state="FAILED", reason="it had to be so")
    service.faults = [Fault("WatchJob", messages=3)]
    stdout, stderr = run("watch", JOB, "--json", code=1)
    events = [json.loads(line) for line in stdout.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, 9))
    assert [event["event"] for event in events] == ["state"] * 2 + ["step"] * 3 + ["validation", "incident", "state"]
    head = {"sequence": 6, "time": "2023-11-14T22:13:20Z", "event": "validation"}
    assert events[5] == head | {"step": 3, "epoch": 1, "loss": 0.25, "accuracy": 0.75}
    assert events[-1]["summary"] == summary_object(summary(name="digits"))
    assert stderr.splitlines() == [
        f"{service.address}: the service cannot be reached: on purpose; trying again",
        f"error: job {JOB} failed: it had to be so",
    ]
    stdout, _ = run("watch", JOB, "--json", "--after", 6, code=1)
    assert [json.loads(line)["sequence"] for line in stdout.splitlines()] == [7, 8]


def test_watch_stops_when_its_reader_has_gone(service):
    service.add_job(JOB, "RUNNING")
    watch = start("watch", JOB)
    assert watch.stdout.readline() == "training\n"
    watch.stdout.close()
    while watch.poll() is None:
        service.happen(JOB, pb.LogLine(text="nobody reads this"))
        time.sleep(0.05)
    assert (watch.returncode, watch.stderr.read()) == (0, "")
    watch.stderr.close()


def on_a_terminal(*arguments, columns=80, code=0, keys=()):
    """What a command shows on a terminal; each key is a text to wait for and what to type then."""
    done = subprocess.run(
        [sys.executable, ON_TERMINAL, str(columns), json.dumps(keys), SHARDSGD, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return without_terminal_codes(done.stdout).replace("\r\n", "\n")


def test_watch_on_a_terminal_draws_one_live_line(service):
    service.add_job(JOB, "RUNNING")
    service.happen(JOB, pb.Metrics(step=41, loss=0.5, samples_per_second=5, fraction_done=0.5, eta_seconds=60))
    seen = on_a_terminal("watch", JOB, keys=[("step", "\x03")], code=130)
    assert "step 41" in seen
    assert f"job {JOB} goes on: `shardsgd watch {JOB}` follows it" in seen.replace("\n", "")
    service.happen(JOB, "SUCCEEDED", summary=summary())
    assert "SUCCEEDED: 30 epochs are done" in on_a_terminal("watch", JOB)


# Steering.


def test_a_job_is_steered(service):
    service.add_job(JOB, "RUNNING")
    assert run("pause", "dig") == (f"{JOB}: RUNNING, pausing\n", "")
    assert run("resume", "dig") == (f"{JOB}: RUNNING\n", "")
    assert run("scale", "dig", 3) == (f"{JOB}: RUNNING\n", "")
    assert run("cancel", "dig") == (f"{JOB}: RUNNING, cancelling\n", "")
    for command in ("pause", "resume", "cancel"):
        assert json.loads(run(command, JOB, "--json")[0])["job_id"] == JOB
    assert json.loads(run("scale", JOB, 3, "--json")[0])["state"] == "RUNNING"
    run("scale", JOB, 0, code=2)


def test_what_cannot_be_done_to_an_ended_job_is_told(service):
    ends(service)
    assert run("pause", JOB, code=2) == ("", "error: cannot do this to a job that has ended\n")


def test_deleting_has_to_be_meant(service):
    ends(service)
    _, stderr = run("delete", JOB, code=2)
    assert "--yes says that you mean it" in stderr
    assert "delete" in on_a_terminal("delete", JOB, keys=[("[y/N]: ", "n\n")])
    # The end of the input, for Ctrl-C in the very moment of the prompt may go by unseen.
    assert "interrupted" in on_a_terminal("delete", JOB, keys=[("[y/N]: ", "\x04")], code=130)
    assert JOB in service.jobs
    assert f"{JOB}: deleted" in on_a_terminal("delete", JOB, keys=[("[y/N]: ", "y\n")])
    assert JOB not in service.jobs
    ends(service)
    run("delete", JOB, "--json", code=2)
    assert json.loads(run("delete", "dig", "--yes", "--json")[0]) == {"deleted": JOB}


def test_download_writes_a_new_file_or_the_one_that_is_named(service, tmp_path):
    ends(service)
    content, header = service.parameters[JOB]
    assert run("download", "dig") == (f"digits.safetensors: {len(content)} B, parameters sha256 0123456789abcdef\n", "")
    path = tmp_path / "digits.safetensors"
    assert path.read_bytes() == content
    path.write_text("dear to somebody")
    assert "there is such a file already" in run("download", JOB, code=2)[1]
    assert path.read_text() == "dear to somebody"
    done = json.loads(run("download", JOB, "--out", path, "--json")[0])
    assert done == {
        "job_id": JOB,
        "path": str(path),
        "size_bytes": len(content),
        "sha256": header.sha256,
        "parameters_sha256": header.parameters_sha256,
    }
    assert path.read_bytes() == content
    service.parameters[JOB] = (content[:-1] + b"x", header)
    assert "damaged" in run("download", JOB, "--out", "other", code=1)[1]
    assert not (tmp_path / "other").exists()


def test_server_tells_what_it_is(service):
    stdout, _ = run("server")
    for figure in (service.address, "shardsgd 9.9", "of 4 free", "ada", "5 open jobs"):
        assert figure in stdout
    assert json.loads(run("server", "--json")[0])["limits"]["open_jobs"] == 5


# Completion.


def completions(*words, **environment):
    """What a shell would offer for the last word."""
    shell = {"_SHARDSGD_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [SHARDSGD], env=os.environ | shell | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_shells_complete_ids(service):
    many(service)
    assert completions("shardsgd", "show", "b-") == ["b-a1b2c3d4e5f6"]
    assert completions("shardsgd", "pause", "") == list(reversed(service.jobs))
    environment = {"SHARDSGD_SERVER": NOWHERE}
    assert completions("shardsgd", "watch", "--server", service.address, "c", **environment) == ["c-a1b2c3d4e5f6"]
    assert completions("shardsgd", "watch", "c", **environment) == []


def test_the_docs_show_only_commands_and_options_that_exist():
    page = (Path(__file__).parents[2] / "docs/client.md").read_text()
    lines = [line.split("#")[0].split() for line in page.splitlines() if line.startswith("shardsgd ")]
    assert {line[1] for line in lines} >= set(COMMANDS)
    for line in lines:
        shown, _ = run(line[1], "--help", env={"COLUMNS": "200"})
        assert {word for word in line if word.startswith("--")} <= set(shown.split())
    shown, _ = run("jobs", "--help", env={"COLUMNS": "200"})
    for option, variable in re.findall(r"^\| `(--[\w-]+)`.*?\| (?:`(\w+)`)?", page, re.MULTILINE):
        assert option in shown
        assert variable in shown
