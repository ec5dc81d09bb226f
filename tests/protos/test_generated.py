"""The committed code is what the .proto makes, and every part of the .proto says what it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from shardsgd.protos import training_pb2

PROTOS = Path(__file__).parents[2] / "protos"
SOURCE = PROTOS / "training.proto"


def protoc(*outputs):
    """What `make protos` runs."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-Ishardsgd/protos={PROTOS}", *outputs]
    subprocess.run([*command, "shardsgd/protos/training.proto"], check=True)


def test_the_committed_modules_are_what_the_proto_makes(tmp_path):
    protoc(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    made = {path.name: path.read_bytes() for path in (tmp_path / "shardsgd/protos").iterdir()}
    committed = {path.name: path.read_bytes() for path in PROTOS.glob("*_pb2*")}
    assert committed == made, "run `make protos`"


@pytest.fixture
def descriptors(tmp_path):
    protoc(f"--descriptor_set_out={tmp_path / 'set'}", "--include_source_info")
    (file,) = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    return file


def test_the_module_describes_the_proto(descriptors):
    loaded = descriptor_pb2.FileDescriptorProto()
    training_pb2.DESCRIPTOR.CopyToProto(loaded)
    descriptors.ClearField("source_code_info")
    for each in (descriptors, loaded):
        for message in each.message_type:
            for field in message.field:
                field.ClearField("json_name")
    assert loaded == descriptors


def test_everything_has_a_comment(descriptors):
    # Paths into a file: 4 messages, 5 enums, 6 services; within each, 2: fields, values or calls.
    commented = {tuple(where.path) for where in descriptors.source_code_info.location if where.leading_comments.strip()}
    kinds = (
        (4, [message.field for message in descriptors.message_type]),
        (5, [enum.value for enum in descriptors.enum_type]),
        (6, [service.method for service in descriptors.service]),
    )
    wanted = {
        path
        for kind, parts in kinds
        for i, members in enumerate(parts)
        for path in [(kind, i), *((kind, i, 2, j) for j in range(len(members)))]
    }
    assert sorted(wanted - commented) == []


def test_names_are_what_buf_lint_wants(descriptors):
    """Of its STANDARD rules those that names and shapes can break."""
    assert descriptors.package == "shardsgd.v1"
    for enum in descriptors.enum_type:
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
        assert all(value.name.startswith(f"{prefix}_") for value in enum.value)
    for message in descriptors.message_type:
        assert re.fullmatch(r"([A-Z][a-z0-9]*)+", message.name)
        assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field.name) for field in message.field)
    used = [
        kind
        for service in descriptors.service
        for call in service.method
        for kind in (call.input_type, call.output_type)
    ]
    assert len(used) == len(set(used)), "no two calls share a message"
    for service in descriptors.service:
        assert service.name.endswith("Service")
        for call in service.method:
            names = call.input_type.rpartition(".")[2], call.output_type.rpartition(".")[2]
            assert names == (f"{call.name}Request", f"{call.name}Response")
