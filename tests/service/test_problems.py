"""The catalog of refusals: complete, documented, and nothing refused beside it. What travels is small enough."""

import ast
import errno
import importlib
import pickle
import re
import sqlite3
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from shardsgd.coordinator.service import datasets, jobs, states
from shardsgd.coordinator.service.problems import CATALOG, Reason, ServiceError
from shardsgd.coordinator.service.rich_errors import DOMAIN, OMITTED, STATUS_BYTES, status_of
from shardsgd.coordinator.service.translation import REASONS, refusal, without_folders
from shardsgd.errors import (
    DataError,
    DivergedError,
    FieldProblem,
    InputError,
    InterruptedJobError,
    LeafError,
    ResumeError,
    ShardsgdError,
    SpecError,
    TakenOverError,
    WorkersLostError,
)

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "coordinator/service"
KINDS = (details.ErrorInfo, details.BadRequest, details.QuotaFailure, details.RetryInfo)


def details_of(status: status_pb2.Status) -> dict[type, Message]:
    found = {}
    for packed in status.details:
        for kind in KINDS:
            if packed.Is(kind.DESCRIPTOR):
                assert kind not in found, "each type of detail once"
                found[kind] = kind()
                packed.Unpack(found[kind])
    assert len(found) == len(status.details)
    return found


def attributes_of(path, name):
    """Every X of `name.X` in a file."""
    tree = ast.parse(path.read_text())
    return [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    ]


def sources():
    return [path for folder in ("client", "coordinator", "workers") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_reason_is_in_the_catalog_under_its_own_name():
    assert list(CATALOG) == list(Reason)
    assert all(reason.name == reason.value and len(reason) <= 63 for reason in Reason)
    assert all(entry.code is not grpc.StatusCode.OK and entry.meaning.endswith(".") for entry in CATALOG.values())


def test_every_reason_that_the_code_names_exists_and_every_one_that_exists_is_used():
    used = {
        attribute for path in sources() if path.name != "problems.py" for attribute in attributes_of(path, "Reason")
    }
    assert used == {reason.name for reason in Reason}


def test_nothing_ends_a_call_but_the_guard():
    """Whatever does so elsewhere has neither details nor a line in the log that is right."""
    endings = {"abort", "abort_with_status", "set_code", "set_details"}
    found = [
        f"{path.name}: {node.attr}"
        for path in sorted(SERVICE.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in endings
    ]
    assert found == ["call_end.py: abort"]


def test_the_page_on_errors_lists_the_catalog():
    rows = [f"| `{reason}` | `{entry.code.name}` | {entry.meaning} |" for reason, entry in CATALOG.items()]
    table = "\n".join(["| reason | code | meaning |", "|---|---|---|", *rows])
    page = (ROOT / "docs/errors.md").read_text()
    assert page.endswith(f"\n\n{table}\n"), f"docs/errors.md is behind problems.py; its table should be:\n{table}"


def tree(error):
    yield error
    for child in error.__subclasses__():
        yield from tree(child)


def all_errors():
    """Of the library and of the service; modules that define none are not imported."""
    for path in SERVICE.glob("*.py"):
        if re.search(r"^class \w+Error\(", path.read_text(), re.MULTILINE):
            importlib.import_module(f"shardsgd.coordinator.service.{path.stem}")
    ours = ("shardsgd.errors", "shardsgd.coordinator.service")
    return {error for error in tree(ShardsgdError) if error.__module__.startswith(ours)}


@pytest.mark.parametrize(
    "error", sorted(all_errors() - {ShardsgdError, ServiceError}, key=lambda error: error.__name__)
)
def test_every_error_of_the_library_has_been_thought_of(error):
    assert any(kind in REASONS for kind in error.__mro__), f"{error.__name__} needs a reason in translation.py"


PROBLEMS = (FieldProblem("batch.size", "0", "must be at least 1"), FieldProblem("data", "", "required: a table"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SpecError("job spec", PROBLEMS), Reason.INVALID_SPEC),
        (InputError("no"), Reason.INVALID_ARGUMENT),
        (DataError("rows.csv: line 3"), Reason.DATA_UNREADABLE),
        (ResumeError("no"), Reason.CANNOT_RESUME),
        (DivergedError("no"), Reason.JOB_FAILED),
        (WorkersLostError("no"), Reason.JOB_FAILED),
        (LeafError("no"), Reason.JOB_FAILED),
        (TakenOverError("no"), Reason.JOB_FAILED),
        (InterruptedJobError("no"), Reason.ILLEGAL_STATE),
        (states.IllegalTransitionError(states.JobState.FAILED, "pause", states.Intent.RUN), Reason.ILLEGAL_STATE),
        (jobs.RequestReusedError("1", "j"), Reason.REQUEST_ID_REUSED),
        (jobs.QuotaError("open jobs", 3, 3), Reason.QUOTA_EXCEEDED),
        (jobs.JobGoneError("j"), Reason.JOB_NOT_FOUND),
        (jobs.DatasetGoneError("a" * 64), Reason.DATASET_NOT_FOUND),
        (jobs.DiskFullError("/srv: full"), Reason.DISK_FULL),
        (datasets.UploadError("no"), Reason.INVALID_ARGUMENT),
        (datasets.UploadTooLargeError("no"), Reason.UPLOAD_TOO_LARGE),
        (datasets.ChecksumError("no"), Reason.CHECKSUM_MISMATCH),
        (OSError(errno.ENOSPC, "No space left on device", "/srv/secret"), Reason.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/srv/secret"), Reason.DISK_FULL),
        (ServiceError(Reason.NO_PARAMETERS, "no"), Reason.NO_PARAMETERS),
    ],
)
def test_errors_of_the_library_have_their_reasons(error, reason):
    refused = refusal(error)
    assert refused.reason is reason
    assert "/srv" not in refused.message


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        OSError(errno.EACCES, "Permission denied", "/srv/secret"),
        sqlite3.OperationalError("database is locked"),
        ShardsgdError("x"),
        jobs.StoreError("/srv/store is damaged"),
        ServiceError(Reason.INTERNAL, "x"),
        TimeoutError("x"),
    ],
)
def test_nothing_is_told_of_what_was_not_meant_to_happen(error):
    assert refusal(error) is None


def test_a_full_disk_is_told_from_sqlites_other_errors():
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("CREATE TABLE t (x)").execute("CREATE TABLE u (x)")
    connection.close()
    assert refusal(caught.value).reason is Reason.DISK_FULL


def test_all_wrong_fields_go_along():
    assert refusal(SpecError("job spec", PROBLEMS)).fields == PROBLEMS


def test_the_services_own_folders_are_not_named():
    error = DataError("/srv/store/datasets/ab.csv: line 2: no number (in /srv/store)")
    private = (Path("/srv/store/datasets"), Path("/srv/store"))
    for order in (private, private[::-1]):
        refused = refusal(error, order)
        assert refused.message == "…/ab.csv: line 2: no number (in …)"
        assert "srv" not in str(refused.fields)
    assert without_folders("/srv/a", [Path("/")]) == "/srv/a"


def test_a_refusal_survives_a_trip_between_processes():
    error = ServiceError(Reason.QUOTA_EXCEEDED, "no", fields=PROBLEMS, metadata={"limit": "3"}, retry_after_s=1.5)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ServiceError
    assert (vars(copy), str(copy)) == (vars(error), "no")


@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_has_its_details(reason):
    error = ServiceError(reason, "words", metadata={"limit": "3"})
    status = status_of(error)
    assert (status.code, status.message) == (CATALOG[reason].code.value[0], "words")
    found = details_of(status)
    info = found[details.ErrorInfo]
    assert (info.reason, info.domain, dict(info.metadata)) == (reason.name, DOMAIN, {"limit": "3"})
    assert (details.BadRequest in found) == (CATALOG[reason].code is grpc.StatusCode.INVALID_ARGUMENT)
    assert (details.QuotaFailure in found) == (CATALOG[reason].code is grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert details.RetryInfo not in found


def test_when_to_try_again_is_told():
    found = details_of(status_of(ServiceError(Reason.SHUTTING_DOWN, "x", retry_after_s=1.25)))
    delay = found[details.RetryInfo].retry_delay
    assert (delay.seconds, delay.nanos) == (1, 250_000_000)


def test_each_wrong_field_is_a_violation_with_what_is_accepted_and_what_was_given():
    bad = details_of(status_of(ServiceError(Reason.INVALID_SPEC, "x", fields=PROBLEMS)))[details.BadRequest]
    assert [(violation.field, violation.description) for violation in bad.field_violations] == [
        ("batch.size", "must be at least 1 (given: 0)"),
        ("data", "required: a table"),
    ]


def test_a_request_that_is_wrong_as_a_whole_has_a_violation_without_a_field():
    bad = details_of(status_of(ServiceError(Reason.INVALID_ARGUMENT, "not a message")))[details.BadRequest]
    assert [(violation.field, violation.description) for violation in bad.field_violations] == [("", "not a message")]


def test_as_many_fields_as_a_spec_has_are_all_named_whatever_is_wrong_with_them():
    fields = tuple(FieldProblem(f"section.field_{number}", "9" * 60, "must be " + "a" * 300) for number in range(50))
    status = status_of(ServiceError(Reason.INVALID_SPEC, "x" * 5000, fields=fields))
    found = details_of(status)
    assert [violation.field for violation in found[details.BadRequest].field_violations] == [
        field.path for field in fields
    ]
    assert OMITTED not in found[details.ErrorInfo].metadata


def test_where_there_is_no_room_it_says_how_many_are_missing():
    fields = tuple(FieldProblem(f"field_{number}", "", "no such field") for number in range(500))
    found = details_of(status_of(ServiceError(Reason.INVALID_SPEC, "x", fields=fields)))
    named = len(found[details.BadRequest].field_violations)
    assert named > 30
    assert int(found[details.ErrorInfo].metadata[OMITTED]) == 500 - named


@pytest.mark.parametrize("length", [5, 20, 60])
def test_what_travels_is_small_just_where_room_gets_scarce(length):
    for count in range(1, 200):
        fields = tuple(FieldProblem(f"field_{number}", "", "x" * length) for number in range(count))
        status = status_of(ServiceError(Reason.INVALID_SPEC, "words", fields=fields, retry_after_s=1.0))
        assert status.ByteSize() <= STATUS_BYTES, count


TEXT = st.text(max_size=300)
FIELDS = st.builds(FieldProblem, TEXT, TEXT, TEXT)


@given(
    st.sampled_from(Reason),
    st.one_of(TEXT, st.integers(0, 3000).map("…".__mul__)),
    st.lists(FIELDS, max_size=40),
    st.integers(1, 30),
    st.dictionaries(TEXT, TEXT, max_size=20),
    st.one_of(st.none(), st.floats(0, 1e6)),
)
@example(Reason.INVALID_SPEC, "\udcff", [FieldProblem(*"\udcff\0…")], 1, {"\udcff": "\udcff"}, None)
def test_what_travels_is_small_and_can_be_read_whatever_it_says(reason, message, fields, times, metadata, retry):
    error = ServiceError(reason, message, fields=tuple(fields * times), metadata=metadata, retry_after_s=retry)
    encoded = status_of(error).SerializeToString()
    assert len(encoded) <= STATUS_BYTES
    found = details_of(status_of(error))
    info = found[details.ErrorInfo]
    assert info.reason == reason.name
    bad = found.get(details.BadRequest)
    if bad is not None and fields:
        assert len(bad.field_violations) + int(info.metadata.get(OMITTED, 0)) == len(fields) * times
