"""Requests that nobody would send: random bytes, mutated messages, absurd fields. `python fuzz.py ADDRESS COUNT` sends many."""

import random
import sys
import time
from collections import Counter

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from shardsgd.protos import training_pb2 as pb

SERVICE = "/shardsgd.v1.TrainingService/"
# What a well-behaved service answers to nonsense. UNAVAILABLE and INTERNAL are its own faults.
CANONICAL = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.CANCELLED,
}
UNARY = {
    "CreateJob": pb.CreateJobRequest,
    "GetJob": pb.GetJobRequest,
    "ListJobs": pb.ListJobsRequest,
    "PauseJob": pb.PauseJobRequest,
    "ResumeJob": pb.ResumeJobRequest,
    "CancelJob": pb.CancelJobRequest,
    "ScaleJob": pb.ScaleJobRequest,
    "DeleteJob": pb.DeleteJobRequest,
    "GetServerInfo": pb.GetServerInfoRequest,
}
STREAMED = {"WatchJob": pb.WatchJobRequest, "DownloadParameters": pb.DownloadParametersRequest}
WORDS = ["", "a", "../..", "\x00", "é" * 300, "x" * 5000, "digits", "sha256:" + "0" * 64, "/etc/passwd", "NaN", "'; --"]
NUMBERS = [0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]
REALS = [0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan")]


def filled(message, chance, depth=0):
    """A message with any fields set to anything."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.4:
            continue
        if field.message_type is not None:
            part = getattr(message, field.name)
            if hasattr(part, "add"):
                for _ in range(chance.randint(0, 3)):
                    filled(part.add(), chance, depth + 1)
            elif depth < 4:
                part.SetInParent()
                filled(part, chance, depth + 1)
            continue
        value = drawn(field, chance)
        target = getattr(message, field.name)
        if hasattr(target, "append"):
            target.extend(drawn(field, chance) for _ in range(chance.randint(0, 4)))
        else:
            try:
                setattr(message, field.name, value)
            except ValueError:  # out of its 32 bits
                setattr(message, field.name, 7)
    return message


def drawn(field, chance):
    if field.enum_type is not None:
        return chance.choice([0, 1, 2, 3, 99, -1])
    kind = field.cpp_type
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return chance.choice(REALS)
    if kind == field.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if kind == field.CPPTYPE_STRING:
        text = chance.choice(WORDS)
        return text.encode() if field.type == field.TYPE_BYTES else text
    numbers = NUMBERS if kind in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else NUMBERS[:5]
    return chance.choice(numbers)


def mutated(content, chance):
    """Bytes with a few of them changed, taken out or put in."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(content))
        match chance.randrange(3):
            case 0 if at < len(content):
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + chance.randint(1, 8)]
            case _:
                content[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(content)


def request(kind, chance):
    match chance.randrange(3):
        case 0:
            return chance.randbytes(chance.randint(0, 200))
        case 1:
            return mutated(filled(kind(), chance).SerializeToString(), chance)
        case _:
            return filled(kind(), chance).SerializeToString()


def send(channel, chance):
    """One absurd call: its method and how it ended."""
    deadline = chance.choice([5.0, 5.0, 5.0, 5.0, 1e-6])
    roll = chance.random()
    try:
        if roll < 0.75:
            name = chance.choice(list(UNARY))
            channel.unary_unary(SERVICE + name)(request(UNARY[name], chance), timeout=deadline)
        elif roll < 0.85:
            name = chance.choice(list(STREAMED))
            for _ in channel.unary_stream(SERVICE + name)(request(STREAMED[name], chance), timeout=deadline):
                pass
        elif roll < 0.97:
            name = "UploadDataset"
            parts = [request(pb.UploadDatasetRequest, chance) for _ in range(chance.randint(0, 4))]
            channel.stream_unary(SERVICE + name)(iter(parts), timeout=deadline)
        else:
            name = "NoSuchMethod"
            channel.unary_unary(SERVICE + name)(chance.randbytes(10), timeout=deadline)
    except grpc.RpcError as error:
        return name, error
    return name, None


def fuzz(address, count, seed=0):
    """Sends so many calls; how they ended, and what was wrong with that."""
    chance = random.Random(seed)
    codes, wrong = Counter(), []
    with grpc.insecure_channel(address) as channel:
        for number in range(count):
            name, error = send(channel, chance)
            code = error.code() if error else grpc.StatusCode.OK
            codes[name, code.name] += 1
            if code not in CANONICAL:
                wrong.append((number, name, code.name, error.details()))
            elif error is not None and code not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
                status = rpc_status.from_call(error)
                reasons = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
                if len(reasons) != 1 or "Traceback" in error.details():
                    wrong.append((number, name, code.name, error.details()))
    return codes, wrong


if __name__ == "__main__":
    begun = time.monotonic()
    found, bad = fuzz(sys.argv[1], int(sys.argv[2]))
    for (method, ended), times in sorted(found.items()):
        sys.stdout.write(f"{method:20} {ended:22} {times}\n")
    sys.stdout.write(f"{time.monotonic() - begun:.0f} s; wrong: {bad}\n")
