"""Shared by all tests: the environment of a worker, before anything imports jax."""

import os

from shardsgd.workers.environment import WORKER_ENVIRONMENT

os.environ.update(WORKER_ENVIRONMENT)

import hypothesis
import pytest

from shardsgd.workers.compute import configure_jax

configure_jax()
# The machines are slow and shared: no test fails for being late. Derandomized: a red run stays red when it is run again.
hypothesis.settings.register_profile("shardsgd", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("shardsgd")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    """No test writes into the working tree."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def ray_session():
    """One Ray for all tests that call the library; each run joins it and leaves it running."""
    from shardsgd.workers.ray_runtime import ray_runtime

    with ray_runtime(cpus=16, object_store_bytes=200 * 2**20):
        yield
