"""Nonsense gets a canonical code, and the service goes on answering."""

import socket

import grpc
from fuzz import fuzz

from shardsgd.protos import training_pb2 as pb
from shardsgd.protos import training_pb2_grpc as pb_grpc


def test_absurd_requests_get_a_canonical_code_and_a_reason(shared, stub):
    codes, wrong = fuzz(shared.address, 1000)
    assert wrong == []
    assert sum(codes.values()) == 1000
    assert stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5).workers_total == 2


def test_connections_opened_and_dropped_cost_nothing(shared, stub):
    host, _, port = shared.address.rpartition(":")
    for number in range(300):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            if number % 3 == 1:
                connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            elif number % 3 == 2:
                connection.send(b"GET / HTTP/1.1\r\n\r\n")
    assert stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5).workers_total == 2


def test_many_channels_at_a_time(shared):
    channels = [grpc.insecure_channel(shared.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(50)]
    calls = [
        pb_grpc.TrainingServiceStub(channel).GetServerInfo.future(pb.GetServerInfoRequest(), timeout=20)
        for channel in channels
    ]
    assert [call.result().workers_total for call in calls] == [2] * 50
    for channel in channels:
        channel.close()
