"""Nodes in network namespaces: that they are there, that their links do what they say, and that nothing of them is left."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.cluster.conversation import Conversation
from benchmarks.cluster.errors import RigError, RigUnavailableError
from benchmarks.cluster.names import rig_of_namespace, this_process
from benchmarks.cluster.network import burst_bytes
from benchmarks.cluster.rig import Rig

REPOSITORY = Path(__file__).parents[2]
RATE_MBIT = 10
LIMIT_S = 60

# Sends so many bytes to whoever connects, and says where they came from; or takes all there is.
_SERVE = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        connection, (client, _) = server.accept()
        with connection:
            connection.sendall(bytes(int(sys.argv[2])))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        print(client, flush=True)
"""
_TAKE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as connection:
    count = 0
    while data := connection.recv(1 << 16):
        count += len(data)
print(count)
"""
_HOLD = """
import json, subprocess, sys
from benchmarks.cluster.rig import Rig
with Rig(2) as rig:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"
    process = rig.nodes[1].run([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    process.stdout.readline()
    print(json.dumps([rig.nodes[0].namespace, process.pid]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def rig():
    with ExitStack() as cleanup:
        try:
            built = cleanup.enter_context(Rig(2, rate_mbit=RATE_MBIT))
        except RigUnavailableError as error:
            pytest.skip(str(error))
        yield built


def serve(node, size):
    """Starts `_SERVE` in a node; the process, and its port."""
    process = node.run([sys.executable, "-c", _SERVE, node.address, str(size)], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def take(node, address, port):
    """How many bytes a process in a node got."""
    process = node.run([sys.executable, "-c", _TAKE, address, str(port)], stdout=subprocess.PIPE, text=True)
    return int(process.communicate(timeout=LIMIT_S)[0])


def take_here(address, port, timeout=LIMIT_S):
    """How many bytes this process got, outside of all namespaces."""
    count = 0
    with socket.create_connection((address, port), timeout) as connection:
        while data := connection.recv(1 << 16):
            count += len(data)
    return count


def traces(namespace):
    """All that has the id of a namespace's rig in its name."""
    rig_id = rig_of_namespace(namespace)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    places = [*listed, *os.listdir("/sys/class/net"), *os.listdir("/tmp"), *os.listdir("/dev/shm")]
    places += Path("/proc/net/unix").read_text().split()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            places.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [place for place in places if f"-{rig_id}" in place]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nodes_reach_each_other_under_their_addresses_and_links_count_the_bytes(rig):
    size = 200_000
    source, target = rig.nodes
    server, port = serve(source, size)
    before = [node.link.counters() for node in rig.nodes]
    assert take(target, source.address, port) == size
    from_source, to_target = (node.link.counters() - was for node, was in zip(rig.nodes, before, strict=True))
    assert server.stdout.readline().strip() == target.address
    for there, back in [(from_source.from_node, from_source.to_node), (to_target.to_node, to_target.from_node)]:
        assert size < there < 1.1 * size
        assert 0 < back < 0.1 * size


def test_a_node_has_no_way_to_other_networks(rig):
    routes = rig.nodes[0].run(["ip", "-j", "route"], stdout=subprocess.PIPE)
    assert [route["dst"] for route in json.loads(routes.communicate()[0])] == [
        rig.nodes[0].address.rpartition(".")[0] + ".0/24"
    ]


def test_the_rate_holds_from_a_node(rig):
    size = 600_000
    _, port = serve(rig.nodes[0], size)
    began = time.monotonic()
    assert take_here(rig.nodes[0].address, port) == size
    assert time.monotonic() - began >= (size - burst_bytes(RATE_MBIT)) * 8 / (RATE_MBIT * 1e6)


def test_the_rate_holds_to_a_node(rig):
    size = 600_000
    with socket.create_server((rig.host_address, 0)) as server:
        port = server.getsockname()[1]
        code = [sys.executable, "-c", _TAKE, rig.host_address, str(port)]
        taker = rig.nodes[0].run(code, stdout=subprocess.PIPE, text=True)
        connection, _ = server.accept()
        began = time.monotonic()
        with connection:
            connection.sendall(bytes(size))
        assert int(taker.communicate(timeout=LIMIT_S)[0]) == size
    assert time.monotonic() - began >= (size - burst_bytes(RATE_MBIT)) * 8 / (RATE_MBIT * 1e6)


def test_nothing_passes_a_link_that_is_cut_and_all_does_when_it_is_restored(rig):
    node, other = rig.nodes
    _, port = serve(node, 10)
    assert take_here(node.address, port) == 10
    node.link.cut()
    try:
        before = node.link.counters()
        with pytest.raises(OSError, match=r"timed out|route"):
            take_here(node.address, port, timeout=0.5)
        assert node.link.counters() == before
        _, other_port = serve(other, 10)
        assert take_here(other.address, other_port) == 10
    finally:
        node.link.restore()
    assert take_here(node.address, port) == 10


def test_a_second_rig_neither_meets_nor_disturbs_the_first(rig):
    with Rig(1) as second:
        assert second.host_address.rpartition(".")[0] != rig.host_address.rpartition(".")[0]
        namespace = second.nodes[0].namespace
    assert traces(namespace) == []
    _, port = serve(rig.nodes[0], 10)
    assert take(rig.nodes[1], rig.nodes[0].address, port) == 10


def test_a_failure_inside_leaves_nothing(rig):
    seen = []

    def fail_inside():
        with Rig(1) as second:
            seen.extend([second.nodes[0].namespace, second.nodes[0].run(["sleep", "1000"])])
            assert traces(seen[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    namespace, process = seen
    assert traces(namespace) == []
    assert process.returncode == -signal.SIGKILL


def test_what_does_not_start_is_told_with_what_it_said(rig):
    with Rig(1) as second, pytest.raises(RigError, match=r"did not start: (.|\n)*'many' is not a valid integer"):
        second.nodes[0].start_ray(cpus="many")


def hold():
    """A process with a rig: itself, the rig's first namespace, a process inside the second."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    namespace, inside = json.loads(process.stdout.readline())
    return process, namespace, inside


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing(rig, number):
    process, namespace, inside = hold()
    with process:
        process.send_signal(number)
    assert process.returncode
    assert traces(namespace) == []
    assert not lives(inside)


def test_what_kill_9_leaves_a_sweep_takes_away_and_living_rigs_stay(rig):
    process, namespace, inside = hold()
    with process:
        process.kill()
    assert traces(namespace)
    assert lives(inside)
    swept = subprocess.run(
        [sys.executable, "-m", "benchmarks.cluster", "sweep"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert namespace in swept.stdout
    assert str(inside) in swept.stdout
    assert traces(namespace) == []
    assert not lives(inside)
    _, port = serve(rig.nodes[0], 10)
    assert take(rig.nodes[1], rig.nodes[0].address, port) == 10


def test_the_next_rig_sweeps_too(rig):
    process, namespace, inside = hold()
    with process:
        process.kill()
    with Rig(1):
        assert traces(namespace) == []
        assert not lives(inside)


def test_a_process_that_has_the_number_of_a_dead_one_is_another():
    mine = this_process()
    assert mine.lives()
    assert not mine._replace(started=mine.started - 1).lives()


def test_without_its_tools_the_command_says_so_and_exits_with_2():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cluster", "try"],
        cwd=REPOSITORY,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: a rig needs ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", [{"nodes": 0}, {"nodes": 100}, {"rate_mbit": 0.5}, {"rate_mbit": float("nan")}])
def test_a_rig_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} = .*must be"):
        Rig(**wrong)


def test_ray_runs_across_nodes_behind_its_token_and_leaves_nothing(rig):
    with Rig(2) as cluster:
        head, other = cluster.nodes
        address = cluster.start_ray()
        token = cluster.folder / "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        processes = head.processes() + other.processes()
        assert not any(token.read_bytes() in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes)

        driver = Conversation(other, address)
        assert driver.joined == other.address
        placed = driver.ask({"spread": [head.address, other.address]}, "placed")
        assert [one["ran_on"] for one in placed] == [head.address, other.address]
        assert [one["pid"] in node.processes() for one, node in zip(placed, cluster.nodes, strict=True)] == [True, True]
        before = other.link.counters()
        driver.ask({"pass": 1_000_000}, "passed")
        carried = other.link.counters() - before
        assert min(carried) > 1_000_000

        other.kill_raylet()
        assert other.raylets() == []
        with pytest.raises(RigError, match="no raylet"):
            other.kill_raylet()
        processes += head.processes()
        namespace = head.namespace
    assert traces(namespace) == []
    assert not any(map(lives, processes))
