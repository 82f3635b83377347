"""One small machine, mounted for all tests that only look."""

import pytest
from semantics.rule import mount

from tdxfs.model import KERNELS


@pytest.fixture(scope="session")
def machine():
    """What the session's mount shows."""
    with mount("mixed", KERNELS[-1]) as made:
        yield made


@pytest.fixture
def own():
    """A mount of the test's own, for what changes it."""
    with mount("mixed", KERNELS[-1]) as made:
        yield made
