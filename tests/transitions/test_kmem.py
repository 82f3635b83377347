"""System RAM of dax devices: what kmem takes, and what it gives back."""

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import Busy, InvalidValue, NoDevice
from tdxfs.kmsg import format_dmesg
from tdxfs.model import GIB, KERNELS, MIB, DaxDevice, DaxRegion, Driver, MemoryLayout, Provider
from tdxfs.policy import Hotplug, Policies
from tdxfs.ranges import Range

NODE, BLOCKS, KMEM = "/sys/devices/system/node", "/sys/devices/system/memory", "/sys/bus/dax/drivers/kmem"
UNALIGNED = Range(12 * GIB + 2 * MIB, 13 * GIB)
"""Blocks 97 to 103, and 126 MiB of block 96."""


def machine(kernel="7.3", auto="offline", mappings=(UNALIGNED,), **changes):
    region = DaxRegion(0, Provider.HMEM, Range(12 * GIB, 14 * GIB), 3, 0, devices=(DaxDevice(0, mappings, None),))
    layout = MemoryLayout(auto_online=auto)
    return tree(evolve(MIXED, tdx=None, kernel=kernel, memory=layout, dax_regions=(region,), **changes))


def take(shown):
    shown.write(f"{KMEM}/new_id", b"dax0.0\0")
    return shown


def log(shown):
    return format_dmesg(shown.machine.log)


@pytest.mark.parametrize("kernel", KERNELS)
def test_whole_blocks_only(kernel):
    """kmem takes the whole blocks of a device; its node is online before any block is, and has no memory."""
    shown = take(machine(kernel))

    assert b"0-3\n" == shown.read(f"{NODE}/online")
    assert b"0-2\n" == shown.read(f"{NODE}/has_memory")
    assert {f"memory{n}" for n in range(97, 104)} == {
        name for name in shown.list(f"{NODE}/node3").names if name[6:].isdecimal()
    }
    assert b"108000000" not in shown.read("/proc/iomem")
    assert b"308000000-33fffffff : dax0.0\n  308000000-33fffffff : System RAM (kmem)" in shown.read("/proc/iomem")
    assert ("truncated by 126 MiB" in log(shown)) is (kernel == "7.3")


@pytest.mark.parametrize(
    ("auto", "zone", "normal"),
    [
        ("online", b"Normal\n", b"0-3\n"),
        ("online_kernel", b"Normal\n", b"0-3\n"),
        ("online_movable", b"Movable\n", b"0-2\n"),
    ],
)
def test_auto_online_decides(auto, zone, normal):
    """auto_online_blocks says whether the blocks go online, and in which zone."""
    shown = take(machine(auto=auto))

    assert b"0-3\n" == shown.read(f"{NODE}/has_memory")
    assert normal == shown.read(f"{NODE}/has_normal_memory")
    assert zone == shown.read(f"{BLOCKS}/memory97/valid_zones")
    assert f"{7 * 128 * 1024} kB".encode() in shown.read(f"{NODE}/node3/meminfo").splitlines()[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_given_back(kernel):
    """Unbound with its blocks offline, all of it is gone: blocks, node, System RAM."""
    before = machine(kernel)
    shown = take(machine(kernel))
    shown.write(f"{KMEM}/unbind", b"dax0.0")

    assert before.machine.blocks == shown.machine.blocks
    assert before.machine.ram == shown.machine.ram
    assert b"0-2\n" == shown.read(f"{NODE}/online")


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        ("6.1", "kmem dax0.0: mapping0: 0x308000000-0x33fffffff cannot be hotremoved until the next reboot"),
        ("7.3", "kmem dax0.0: mapping0: 0x308000000-0x33fffffff stuck online until reboot"),
    ],
)
def test_unbound_while_online(kernel, said):
    """The unbind succeeds, the memory stays and a line of the log says so; kmem cannot take it again."""
    shown = take(machine(kernel, auto="online"))
    assert 6 == shown.write(f"{KMEM}/unbind", b"dax0.0")

    assert said in log(shown)
    assert b"0-3\n" == shown.read(f"{NODE}/has_memory")
    assert b"System RAM (kmem)" in shown.read("/proc/iomem")
    with pytest.raises(Busy):
        shown.write(f"{KMEM}/bind", b"dax0.0")
    assert "could not reserve region" in log(shown)


def test_too_small_for_a_block():
    """A mapping without a whole block is left out, a device without any is refused; the log says which."""
    small = Range(13 * GIB + 64 * MIB, 13 * GIB + 192 * MIB)
    shown = take(machine(mappings=(UNALIGNED, small)))
    assert 7 == len(shown.machine.node_blocks[3])
    assert "mapping1: 0x344000000-0x34bffffff too small after alignment" in log(shown)

    shown = take(machine(mappings=(small,)))
    assert shown.machine.dax[0, 0].driver is None
    with pytest.raises(InvalidValue):
        shown.write(f"{KMEM}/bind", b"dax0.0")
    assert "rejecting DAX region without any memory after alignment" in log(shown)


class TestState:
    STATE = "/sys/bus/dax/devices/dax0.0/state"

    def test_unplug_and_plug_again(self):
        """unplugged takes all memory offline and away, an online type brings all of it back so."""
        shown = take(machine(auto="online"))
        assert b"online\n" == shown.read(self.STATE)
        shown.write(self.STATE, b"unplugged")
        assert b"unplugged\n" == shown.read(self.STATE)
        assert 3 not in shown.machine.node_blocks
        shown.write(self.STATE, b"online_movable")
        assert b"Movable\n" == shown.read(f"{BLOCKS}/memory100/valid_zones")

    @pytest.mark.parametrize(("word", "refusal"), [(b"offline", InvalidValue), (b"x", InvalidValue), (b"online", Busy)])
    def test_refusals(self, word, refusal):
        """offline cannot be written; only an unplugged device can go online."""
        shown = take(machine())
        with pytest.raises(refusal):
            shown.write(self.STATE, word)

    def test_gone_with_the_driver(self):
        """The file is there only while kmem has the device."""
        shown = take(machine())
        shown.write(f"{KMEM}/unbind", b"dax0.0")
        with pytest.raises(NoDevice):
            shown.write(self.STATE, b"unplugged")


@pytest.mark.parametrize("hotplug", Hotplug)
def test_memory_outside_tdx_memory(hotplug):
    """reject: bound, and no block goes online; reject-range: EINVAL and a message; allow: all of it goes online."""
    device = DaxDevice(0, (UNALIGNED,), None)
    region = DaxRegion(0, Provider.HMEM, Range(12 * GIB, 14 * GIB), 3, 0, devices=(device,))
    shown = tree(evolve(MIXED, dax_regions=(region,), policies=Policies(hotplug=hotplug)))
    before = log(shown)
    shown.write(f"{KMEM}/new_id", b"dax0.0")
    message = "Reject hot-adding memory range: 0x308000000-0x340000000 for TDX compatibility."

    assert (hotplug is Hotplug.REJECT_RANGE) is (message in log(shown).removeprefix(before))
    bound = Driver.KMEM if hotplug is not Hotplug.REJECT_RANGE else None
    assert bound is shown.machine.dax[0, 0].driver
    online = [block.online for _, _, block in shown.machine.blocks.within(97, 104)]
    assert {Hotplug.REJECT: [False], Hotplug.REJECT_RANGE: [], Hotplug.ALLOW: [True]}[hotplug] == online
