"""Each row of the table of differences is true: should the mount become able to do it, the row must go."""

import os

import pytest
from differences import DIFFERENCES
from syscalls import answer


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.what)
def test_difference(own, difference):
    """The mount answers what the table says, and that is not sysfs's answer."""
    assert difference.mount == difference.probe(own)
    assert difference.mount != difference.sysfs


def test_rows_are_told_apart():
    """Every row has a name of its own and a reason."""
    assert len({row.what for row in DIFFERENCES}) == len(DIFFERENCES)
    assert all(row.why for row in DIFFERENCES)


def test_user_attributes_cannot_be_set(machine):
    """setxattr(2) and removexattr(2) of user.* are refused as on sysfs."""
    assert answer(os.setxattr, machine.possible, "user.x", b"1") == "ENOTSUP"
    assert answer(os.removexattr, machine.possible, "user.x") == "ENOTSUP"
