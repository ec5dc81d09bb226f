"""One service for the tests that leave it as they found it."""

import pytest
from service import serving, stub_of


@pytest.fixture(scope="package")
def shared(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("shared") / "store", "--reflection") as service:
        yield service


@pytest.fixture(scope="package")
def stub(shared):
    with stub_of(shared.address) as opened:
        yield opened
