"""Who is let in at the coordinator's socket, and what it is handed."""

import fcntl
import os
import socket
import threading
from contextlib import closing

import pytest

from shardsgd.errors import JobError
from shardsgd.workers.handover import _HELLO, Address, Listener, connect


@pytest.fixture
def memory():
    descriptors = [os.memfd_create("test") for _ in range(2)]
    for number, descriptor in enumerate(descriptors):
        os.write(descriptor, b"memory %d" % number)
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def come(address, message):
    """Somebody who connects and says something."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address.name)
    connection.send(message)
    return connection


def test_a_worker_gets_the_memory_and_the_number(memory):
    with closing(Listener(2)) as listener:
        arrived = []
        worker = threading.Thread(target=lambda: arrived.append(connect(listener.address, 1, len(memory))))
        worker.start()
        accepted = None
        while accepted is None:
            accepted = listener.accept({0, 1}, memory, 77)
        worker.join()
    number, connection = accepted
    ((other, received, count),) = arrived
    assert (number, count) == (1, 77)
    for sent, descriptor in zip(memory, received, strict=True):
        assert os.fstat(sent).st_ino == os.fstat(descriptor).st_ino
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, "a child would keep the memory"
        os.close(descriptor)
    connection.send(b"hello")
    assert other.recv(10) == b"hello"
    for end in (connection, other):
        end.close()


@pytest.mark.parametrize(
    "hello",
    [
        lambda token: _HELLO.pack(bytes(32), 1),
        lambda token: _HELLO.pack(token, 5),
        lambda token: token,
        lambda token: b"x",
    ],
    ids=["another token", "a number that is not expected", "no number", "no token"],
)
def test_anybody_else_is_hung_up_on(hello, memory):
    with closing(Listener(1)) as listener:
        stranger = come(listener.address, hello(listener.address.token))
        assert listener.accept({1}, memory, 0) is None
        message, descriptors, _, _ = socket.recv_fds(stranger, 100, 2)
        assert (message, descriptors) == (b"", [])
        stranger.close()


def test_whoever_hangs_up_before_it_says_anything_is_forgotten(memory):
    with closing(Listener(1)) as listener:
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stranger.connect(listener.address.name)
        stranger.close()
        assert listener.accept({1}, memory, 0) is None
        assert listener.accept({1}, memory, 0) is None, "and nobody else has come"


def test_a_worker_that_is_not_let_in_says_so():
    with closing(Listener(1)) as listener:
        wrong = Address(listener.address.name, bytes(32))
        failures = []

        def try_it():
            try:
                connect(wrong, 1, 2)
            except JobError as error:
                failures.append(str(error))

        worker = threading.Thread(target=try_it)
        worker.start()
        while worker.is_alive():
            assert listener.accept({1}, [], 0) is None
    assert failures == ["the coordinator hung up"]
