"""Tests for `tdxfs.devfs`."""

import stat

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import NoAddress, NoEntry
from tdxfs.model import GIB, LogRecord
from tdxfs.ring import Ring
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Reader
from tdxfs.tree import Stat, Tree, stat_of


class TestDaxNodes:
    def test_a_file_as_large_as_the_device(self):
        """A regular file of mode 0600 and the device's size: FUSE cannot serve a character device."""
        found = stat_of(tree().lookup("/dev/dax0.0"))

        assert found == Stat(stat.S_IFREG | 0o600, GIB)

    def test_its_number_leads_to_the_dax_bus(self):
        """daxctl finds the dax bus by the device number of the file, 0:0."""
        assert "/sys/bus/dax" == tree().follow("/sys/dev/char/0:0/subsystem")[0]

    def test_unbound(self):
        """open() of a device that device_dax does not have is ENXIO."""
        region = MIXED.dax_regions[0]
        unbound = evolve(region, devices=(evolve(region.devices[0], driver=None),))

        with pytest.raises(NoAddress):
            tree(evolve(MIXED, dax_regions=(unbound,))).lookup("/dev/dax0.0").may_open()

    def test_no_node_without_a_device(self):
        """There is no node for a device that does not exist."""
        for name in ("dax0.1", "dax1.0", "dax00.0"):
            with pytest.raises(NoEntry):
                tree().lookup(f"/dev/{name}")


LOG = (LogRecord(6, 5, "forgotten"), LogRecord(6, 10, "virt/tdx: one"), LogRecord(3, 25, "two"))


class TestKmsg:
    def test_one_record_per_line(self):
        """A record is level, sequence number, microseconds, flags and the text; the oldest are not kept."""
        machine = evolve(tree().machine, log=Ring(2).extended(LOG))
        kmsg = Tree(Root, machine).lookup("/dev/kmsg")

        assert kmsg.show() == b"6,1,10,-;virt/tdx: one\n3,2,25,-;two\n"
        assert Reader.RECORDS is kmsg.reader
        assert kmsg.size == 0

    def test_the_boot_is_in_it(self):
        """The emulated kernel says at boot what became of TDX."""
        assert b"virt/tdx: " in tree(MIXED).lookup("/dev/kmsg").show()
