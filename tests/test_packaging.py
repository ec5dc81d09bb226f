"""What is installed is what was tested: the wheel holds every module, the type marker, and works by itself."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "shardsgd": "client",
    "shardsgd/coordinator": "coordinator",
    "shardsgd/coordinator/data": "coordinator/data",
    "shardsgd/coordinator/variance": "coordinator/variance",
    "shardsgd/model": "model",
    "shardsgd/protos": "protos",
    "shardsgd/workers": "workers",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: setuptools would leave build folders in the working tree.
    source = folder / "source"
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("shardsgd-*.whl"))


def test_the_coordinator_starts_without_jax():
    """Importing it takes half a second before the first step, and it may not be there when Ray forks."""
    script = "import sys, shardsgd.coordinator.training; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_wheel_holds_every_module_under_one_name(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{package}/{path.name}" for package, folder in FOLDERS.items() for path in (ROOT / folder).glob("*.py")
    }
    assert expected | {"shardsgd/py.typed"} <= names
    assert {name.split("/")[0] for name in names if not name.startswith("shardsgd-")} == {"shardsgd"}


def test_every_module_of_the_wheel_imports_without_the_working_tree(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = (
        "import importlib, pkgutil, shardsgd\n"
        "assert shardsgd.__file__.startswith('" + str(tmp_path) + "'), shardsgd.__file__\n"
        "for module in pkgutil.walk_packages(shardsgd.__path__, 'shardsgd.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "        print(module.name)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "shardsgd.workers.ray_exchange" in done.stdout.split()
