"""kill -9, and take-overs, at any moment while checkpoints are written: the newest complete one is whole."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import LAYOUT, SLOTS, is_same, state_at

from shardsgd.coordinator.checkpoint_reading import load_checkpoint

SUPPORT = Path(__file__).parents[1] / "support"


def test_killed_at_random_moments_a_run_goes_on_from_a_whole_checkpoint_and_loses_none(tmp_path):
    moments = random.Random(0)
    saved = 0
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, SUPPORT / "session_process.py", tmp_path, "resume"], stdout=subprocess.PIPE, text=True
        ) as process:
            for _ in range(moments.randint(1, 5)):
                saved = int(process.stdout.readline())
            # Any moment will do: this draws one, and waits for nothing.
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            saved = max([saved, *map(int, process.stdout)])
        loaded = load_checkpoint(tmp_path / "checkpoints", LAYOUT, SLOTS, lambda text: None)
        assert loaded.state.step in (saved, saved + 1)
        assert is_same(loaded.state, state_at(loaded.state.step))


@pytest.mark.parametrize(("what", "changes_hands"), [("killed", 0), ("taken over", 30)])
def test_at_every_operation_on_a_file(tmp_path, what, changes_hands):
    """Not at random moments but at all: see `every_moment.py`, where a session taken over must not change a byte any more."""
    script = SUPPORT / "every_moment.py"
    done = subprocess.run(
        [sys.executable, script, what, tmp_path], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    operations, takeovers = map(int, done.stdout.split())
    assert operations >= 60
    assert takeovers >= changes_hands
