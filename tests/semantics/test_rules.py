"""Every rule, on mounts of every kernel."""

from contextlib import ExitStack

import pytest

from semantics import DIFFERENCES, RULES
from semantics.rule import mount
from tdxfs.model import KERNELS

pytestmark = pytest.mark.skipif("os.geteuid() != 0", reason="the tables are root's: scripts/test runs as root")


@pytest.fixture(scope="module")
def mounts():
    """Machine and kernel -> its mount, made when it is first asked for."""
    made = {}
    with ExitStack() as stack:

        def find(*key):
            if key not in made:
                made[key] = stack.enter_context(mount(*key))
            return made[key]

        yield find


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rule(mounts, rule, kernel):
    """The mount answers as sysfs does, or as the table of differences says."""
    asked = mounts(rule.on, kernel)
    asked.reboot()

    assert rule.allowed(kernel) == rule.probe(asked)


@pytest.mark.parametrize("rule", DIFFERENCES, ids=str)
def test_differences(rule):
    """What the table of differences says is not sysfs's answer on some kernel."""
    assert any(rule.expected(kernel) != rule.allowed(kernel) for kernel in KERNELS)


def test_rules_are_told_apart():
    """Every rule has a name of its own, and every section of the measurements that a mount can show has rules."""
    assert len({str(rule) for rule in RULES}) == len(RULES)
    sections = {"3", "4.1", "4.2", "5", "6", "7.1", "7.2", "8", "9", "10", "11", "11.1", "11.2", "11.3", "11.4"}
    assert sections | {"12.1", "12.2", "12.3", "12.4", "13", "14"} == {rule.section for rule in RULES}
