"""One small machine, mounted for all tests that only look, and short names for the files they look at."""

import pytest
from attrs import frozen
from machines import MIXED

from tdxfs.server import mounted


@frozen
class Paths:
    """The files that facts call by these names."""

    root: str

    @property
    def sys(self):
        return f"{self.root}/sys"

    @property
    def nodes(self):
        return f"{self.sys}/devices/system/node"

    @property
    def node0(self):
        return f"{self.nodes}/node0"

    @property
    def possible(self):
        """0444."""
        return f"{self.nodes}/possible"

    @property
    def aob(self):
        """0644."""
        return f"{self.sys}/devices/system/memory/auto_online_blocks"

    @property
    def compact(self):
        """0200."""
        return f"{self.node0}/compact"

    @property
    def cpumap(self):
        return f"{self.node0}/cpumap"

    @property
    def cpulist(self):
        return f"{self.node0}/cpulist"

    @property
    def link(self):
        return f"{self.node0}/cpu0"


@pytest.fixture(scope="session")
def machine():
    """What the session's mount shows."""
    with mounted(MIXED) as root:
        yield Paths(str(root))


@pytest.fixture
def own():
    """A mount of the test's own, for what changes it."""
    with mounted(MIXED) as root:
        yield Paths(str(root))
