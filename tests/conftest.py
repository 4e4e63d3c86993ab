"""What every test may use."""

from pathlib import Path

import pytest

# The contract's asserts tell what they compared, though its file is no test module.
pytest.register_assert_rewrite("tests.format_contract")

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """Real files beside the checkout (shared/data, listed in its SOURCES.md); they are no part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"real files are not at {SHARED}")
    return SHARED
