"""Writes through a real mount: what one process writes, all readers see."""

import errno
import os

import pytest
from machines import MIXED

from tdxfs.server import mounted

BLOCK = "sys/devices/system/memory/memory40"


@pytest.fixture
def root():
    with mounted(MIXED) as where:
        yield where


def test_a_write_changes_the_machine(root):
    """echo offline > state: other files follow at once, open ones at their next read of offset 0."""
    held = os.open(root / BLOCK / "online", os.O_RDONLY)
    assert b"1\n" == os.read(held, 10)

    (root / BLOCK / "state").write_text("offline\n")

    assert "offline\n" == (root / BLOCK / "state").read_text()
    assert b"0\n" == os.pread(held, 10, 0)
    os.close(held)


@pytest.mark.parametrize("written", [b"garbage", b"online"])
def test_refusals_reach_the_caller(root, written):
    """What the store refuses is the errno of write(2)."""
    handle = os.open(root / BLOCK / "state", os.O_WRONLY)
    with pytest.raises(OSError) as refused:
        os.write(handle, written)
    os.close(handle)

    assert errno.EINVAL == refused.value.errno
