"""Tests for `tdxfs.devfs`."""

import os
import stat

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import NoEntry
from tdxfs.model import LogRecord
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Reader
from tdxfs.tree import Tree, stat_of


class TestDaxNodes:
    def test_a_character_device_per_dax_device(self):
        """A node has the numbers that sysfs gives, mode 0600 and size 0, bound or not."""
        found = stat_of(tree().lookup("/dev/dax0.0"))

        assert found.mode == stat.S_IFCHR | 0o600
        assert found.size == 0
        assert f"{os.major(found.rdev)}:{os.minor(found.rdev)}\n".encode() == tree().read(
            "/sys/bus/dax/devices/dax0.0/dev"
        )

    def test_listed_as_one(self):
        """readdir says what stat says."""
        listing = tree().list("/dev")

        assert dict(zip(listing.names, listing.types, strict=True))["dax0.0"] == stat.S_IFCHR

    def test_no_node_without_a_device(self):
        """There is no node for a device that does not exist."""
        for name in ("dax0.1", "dax1.0", "dax00.0"):
            with pytest.raises(NoEntry):
                tree().lookup(f"/dev/{name}")


class TestKmsg:
    def test_one_record_per_line(self):
        """A record is level, sequence number, microseconds, flags and the text, and is read by itself."""
        machine = evolve(tree().machine, log=(LogRecord(6, 10, "virt/tdx: one"), LogRecord(3, 25, "two")))
        kmsg = Tree(Root, machine).lookup("/dev/kmsg")

        assert kmsg.show() == b"6,0,10,-;virt/tdx: one\n3,1,25,-;two\n"
        assert Reader.RECORDS is kmsg.reader
        assert kmsg.size == 0

    def test_the_boot_is_in_it(self):
        """The emulated kernel says at boot what became of TDX."""
        assert b"virt/tdx: " in tree(MIXED).lookup("/dev/kmsg").show()
