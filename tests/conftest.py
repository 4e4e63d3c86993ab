"""What every test may use."""

from itertools import count
from pathlib import Path

import pytest

from tests import s3
from tests.racers import Racers

# The contract's asserts tell what they compared, though its file is no test module.
pytest.register_assert_rewrite("tests.format_contract")

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
_numbers = count()


@pytest.fixture(scope="session")
def shared_data():
    """Real files beside the checkout (shared/data, listed in its SOURCES.md); they are no part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"real files are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def s3_port():
    """The port of an S3 server on loopback."""
    with s3.server() as port:
        yield port


@pytest.fixture
def bucket(s3_port, monkeypatch):
    """The URL of a new bucket that the environment gives access to."""
    name = f"bucket-{next(_numbers)}"
    s3.make_bucket(s3_port, name)
    for variable, value in s3.environment(s3_port).items():
        monkeypatch.setenv(variable, value)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def racers():
    """Eight processes in which aunn-data is loaded, to be started together."""
    with Racers(8) as racers:
        yield racers
