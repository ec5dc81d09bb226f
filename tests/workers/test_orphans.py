"""What is left of a private Ray: nothing, however its coordinator ends. Real Ray, real signals."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardsgd.workers import ray_reaper
from shardsgd.workers.ray_folder import private_folder

COORDINATOR = """
import os, signal, sys
import ray
from shardsgd.workers.ray_runtime import ray_runtime

with ray_runtime(cpus=2, object_store_bytes=0):
    class Worker:
        def pid(self):
            return os.getpid()

    workers = [ray.remote(Worker).remote() for _ in range(2)]
    child = os.fork()
    if not child:
        signal.pause()
    print(child, flush=True)
    while sys.stdin.readline() != "end\\n":
        print(*ray.get([worker.pid.remote() for worker in workers]), flush=True)
"""
BYSTANDER = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
LIMIT_S = 30.0


class Coordinator:
    """A process with a Ray of its own.

    Attributes:
        child: a fork of it that is none of Ray's business.
    """

    def __init__(self) -> None:
        self.child = 0
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", COORDINATOR],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        if self.child:
            os.kill(self.child, signal.SIGKILL)
        self._process.communicate(timeout=LIMIT_S)

    def workers(self) -> list[int]:
        """Their pids, by their own word."""
        if not self.child:
            self.child = int(self._process.stdout.readline())
        self._tell("workers")
        return [int(pid) for pid in self._process.stdout.readline().split()]

    def _tell(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        """Stops its workers and Ray's agents, which cannot see any more that anybody has died."""
        workers = self.workers()
        frozen = [pid for pid, line in self.named().items() if line.startswith("ray::")]
        assert set(workers) < set(frozen)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Lets it leave its block, and checks what is left at the very moment it has ended."""
        self._tell("end")
        self._process.wait(timeout=LIMIT_S)
        assert self.left() == []
        assert self._process.returncode == 0

    @property
    def folders(self) -> list[Path]:
        return list(Path("/tmp").glob(f"shardsgd-ray-{self._process.pid}-*"))

    def named(self) -> dict[int, str]:
        """Processes that have its Ray's folder's name anywhere, itself and its child apart."""
        processes = named(f"shardsgd-ray-{self._process.pid}-")
        return {pid: line for pid, line in processes.items() if pid not in (self._process.pid, self.child)}

    def left(self) -> list[str]:
        """Of its Ray, folder and processes."""
        return [*map(str, self.folders), *self.named().values()]


def named(part: str) -> dict[int, str]:
    """Processes that have some text in their command line, their environment or the names of their open files."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            if any(part in text for text in (line, environment, *map(target, (entry / "fd").iterdir()))):
                found[int(entry.name)] = line
    return found


def target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def wait_until(condition) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_coordinator_leaves_nothing_and_its_neighbour_goes_on():
    with Coordinator() as killed, Coordinator() as neighbour:
        killed.workers()
        workers = neighbour.workers()
        (reaper,) = (pid for pid, line in killed.named().items() if "ray_reaper" in line)
        for harmless in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(reaper, harmless)
        killed.kill()
        wait_until(lambda: not killed.left())
        assert neighbour.workers() == workers
        neighbour.end()


def test_frozen_workers_and_agents_go_with_a_killed_coordinator_and_no_bystander_does():
    with Coordinator() as coordinator:
        coordinator.freeze()
        (folder,) = coordinator.folders
        reading = {"cwd": folder, "env": os.environ | {"A_FOLDER": str(folder)}}
        with subprocess.Popen([*BYSTANDER, folder], stdout=subprocess.PIPE, **reading) as bystander:
            bystander.stdout.readline()
            coordinator.kill()
            wait_until(lambda: set(named(str(folder))) == {coordinator.child, bystander.pid})
            wait_until(lambda: not folder.exists())
            assert alive(bystander.pid)
            assert alive(coordinator.child)
            bystander.kill()


def test_frozen_workers_and_agents_go_with_a_coordinators_normal_end_even_when_the_raylet_is_dead():
    with Coordinator() as coordinator:
        coordinator.freeze()
        (raylet,) = (pid for pid, line in coordinator.named().items() if "/raylet/raylet " in line)
        os.kill(raylet, signal.SIGKILL)
        coordinator.end()


def test_a_coordinator_killed_while_ray_starts_leaves_nothing():
    with Coordinator() as coordinator:
        wait_until(lambda: any("gcs_server" in line for line in coordinator.left()))
        coordinator.kill()
        wait_until(lambda: not coordinator.left())


@pytest.fixture
def started():
    """Starts stand-ins for Ray's processes, which name a folder in their command line, their environment or both."""
    processes = []

    def start(*, named="", variable="") -> subprocess.Popen:
        environment = os.environ | {ray_reaper.FOLDER_VARIABLE: str(variable)}
        process = subprocess.Popen([*BYSTANDER, f"{named}/socket"], stdout=subprocess.PIPE, env=environment)
        processes.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_cleaning_ends_the_processes_of_exactly_one_folder(tmp_path, started):
    folder, longer = tmp_path / "ray-abc", tmp_path / "ray-abcd"
    folder.mkdir()
    longer.mkdir()
    ours = started(named=folder, variable=folder)
    others = [started(named=folder), started(variable=folder), started(named=longer, variable=longer)]
    ray_reaper.clean(str(folder))
    assert ours.wait(timeout=LIMIT_S) == -signal.SIGKILL
    assert [other.poll() for other in others] == [None] * 3
    assert not folder.exists()
    assert longer.exists()


def test_what_a_run_left_that_was_killed_with_its_reaper_is_swept_by_the_next(started):
    with subprocess.Popen(["true"]) as gone:
        pass
    folder = Path(f"/tmp/shardsgd-ray-{gone.pid}-test")
    folder.mkdir()
    left = started(named=folder, variable=folder)
    with private_folder() as own:
        assert left.wait(timeout=LIMIT_S) == -signal.SIGKILL
        assert not folder.exists()
        with private_folder():
            assert own.exists()
    assert not own.exists()


def test_a_run_that_this_process_cannot_see_is_told_by_its_lock():
    with subprocess.Popen(["true"]) as gone:
        pass
    folder = Path(f"/tmp/shardsgd-ray-{gone.pid}-test")
    folder.mkdir()
    script = f"import sys; sys.path.insert(0, {str(Path(ray_reaper.__file__).parent)!r}); import ray_reaper, signal\n"
    script += f"ray_reaper.lock({str(folder)!r}, wait=False); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with private_folder():
            assert folder.exists()
        holder.kill()
    with private_folder():
        assert not folder.exists()
