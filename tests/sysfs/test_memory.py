"""Tests for `tdxfs.sysfs.memory`."""

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import AccessDenied, InvalidValue, NoDevice, NotPermitted
from tdxfs.model import GIB, MIB, Memory, MemoryLayout
from tdxfs.ranges import Range

MEMORY = "/sys/devices/system/memory"


def test_block_size_is_bare_hexadecimal():
    """128 MiB without 0x."""
    assert tree().read(f"{MEMORY}/block_size_bytes") == b"8000000\n"


@pytest.mark.parametrize(
    ("block", "zones"),
    [(0, b"none\n"), (1, b"DMA32\n"), (32, b"Normal\n")],
)
def test_zone_of_an_online_block(block, zones):
    """A block of one zone names it; the first one meets DMA and DMA32."""
    assert zones == tree().read(f"{MEMORY}/memory{block}/valid_zones")


def test_offline_block():
    """An offline block says so, names the zones it could join, and its memory does not count."""
    offline = tree(evolve(MIXED, memory=MemoryLayout(128 * MIB, offline="48")))

    assert offline.read(f"{MEMORY}/memory48/state") == b"offline\n"
    assert offline.read(f"{MEMORY}/memory48/online") == b"0\n"
    assert offline.read(f"{MEMORY}/memory48/valid_zones") == b"Normal Movable\n"
    assert offline.read(f"{MEMORY}/memory49/state") == b"online\n"
    assert str((2048 - 128) * 1024).encode() in offline.read("/sys/devices/system/node/node1/meminfo")


def test_capability_of_a_block():
    """Node 1 is half convertible: its first block is capable, its last one is not."""
    assert tree().read(f"{MEMORY}/memory55/x86/tdx_capable") == b"1\n"
    assert tree().read(f"{MEMORY}/memory63/x86/tdx_capable") == b"0\n"


def test_blocks_follow_memory():
    """There is a block wherever there is memory, and none in the hole below 4 GiB."""
    names = {name for name in tree().list(MEMORY).names if name[6:].isdecimal()}

    assert {f"memory{number}" for number in [*range(16), *range(32, 80)]} == names


class TestState:
    STATE = "/sys/devices/system/memory/memory40/state"

    def test_offline_and_online(self):
        """A block goes offline and online; the node's lists and the generation follow."""
        shown = tree()
        assert 8 == shown.write(self.STATE, b"offline\n")

        assert b"offline\n" == shown.read(self.STATE)
        assert 1 == shown.machine.generation
        assert 13 == shown.write(self.STATE, b"online_kernel")
        assert b"online\n" == shown.read(self.STATE)

    @pytest.mark.parametrize("written", [b"garbage", b"online", b"OFFLINE", b"offline\n\n", b" offline"])
    def test_what_means_nothing(self, written):
        """An unknown word, and the state the block is in, are EINVAL; nothing changes."""
        shown = tree()
        before = shown.machine
        with pytest.raises(InvalidValue):
            shown.write(self.STATE, written)

        assert before is shown.machine

    def test_tdx_vetoes_what_is_not_tdx_memory(self):
        """Onlining a block outside TDX memory is EPERM, and nothing is printed."""
        later = evolve(MIXED.nodes[1], memory=(*MIXED.nodes[1].memory, Memory(Range(16 * GIB, 17 * GIB), hotplug=True)))
        shown = tree(evolve(MIXED, nodes=(MIXED.nodes[0], later, MIXED.nodes[2])))
        log = shown.machine.log
        with pytest.raises(NotPermitted):
            shown.write("/sys/devices/system/memory/memory128/state", b"online")

        assert log == shown.machine.log

    def test_wrong_files(self):
        """A block that is gone is ENODEV, a file without w bits EACCES; writing nothing does nothing."""
        shown = tree()
        with pytest.raises(NoDevice):
            shown.write("/sys/devices/system/memory/memory9999/state", b"online")
        with pytest.raises(AccessDenied):
            shown.write("/sys/devices/system/memory/memory40/removable", b"1")

        assert 0 == shown.write(self.STATE, b"")
