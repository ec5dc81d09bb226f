"""A client that this project did not generate: Node's gRPC, which knows nothing but training.proto."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from service import serving

HERE = Path(__file__).parent
PROTOS = HERE.parents[1] / "protos"


@pytest.fixture
def client(tmp_path):
    """The client's folder, with its packages, as its lock file has them."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm on this machine")
    folder = tmp_path / "node"
    shutil.copytree(HERE / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True
    )
    return folder / "client.js"


def test_it_submits_watches_pauses_resumes_and_downloads(client, tmp_path):
    with serving(tmp_path / "store") as service:
        command = ["node", client, service.address, PROTOS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["intent"] == "INTENT_PAUSE"
    assert seen["sequences"] == list(range(1, len(seen["sequences"]) + 1)), "each event once, over three streams"
    states = [state.removeprefix("JOB_STATE_") for state in seen["states"]]
    assert states == ["QUEUED", "STARTING", "RUNNING", "PAUSED", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert seen["downloaded"] == seen["sha256"]
    assert seen["wrong"] == {"code": 3, "details": 1}
