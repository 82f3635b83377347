"""Memory blocks take what is written as real kernels did, errno for errno."""

import pytest
from attrs import evolve
from machines import MIXED, tree, wrote

from tdxfs.kmsg import format_dmesg
from tdxfs.model import GIB, KERNELS, MIB, Memory, MemoryLayout, Node
from tdxfs.policy import Cover, Hotplug, Policies
from tdxfs.ranges import Range

MEMORY, NODE = "/sys/devices/system/memory", "/sys/devices/system/node"
PLAIN = evolve(MIXED, tdx=None)


def read(machine, path):
    return machine.read(path).decode().removesuffix("\n")


def test_last_kernel_memory():
    """The kernel's last memory stays: EBUSY."""
    machine = tree(evolve(PLAIN, nodes=(Node(0, (Memory(Range(4 * GIB, 4 * GIB + 256 * MIB)),)),)))

    assert ["ok", "EBUSY"] == [wrote(machine, f"{MEMORY}/memory{n}/state", "offline") for n in (33, 32)]


class TestZones:
    """valid_zones, has_memory and has_normal_memory; compare default_zone_for_pfn()."""

    def zones(self, machine, block):
        return read(machine, f"{MEMORY}/memory{block}/valid_zones")

    def machine(self):
        machine = tree(PLAIN)
        for block in range(64, 80):
            assert wrote(machine, f"{MEMORY}/memory{block}/state", "offline") == "ok"
        return machine

    def test_kernel_zone_by_default(self):
        """Without neighbours the kernel zone comes first, and a block goes online there."""
        machine = self.machine()
        assert self.zones(machine, 70) == "Normal Movable"
        wrote(machine, f"{MEMORY}/memory70/state", "online")
        assert self.zones(machine, 70) == "Normal"

    def test_between_movable_blocks(self):
        """Between movable blocks, movable comes first, and a block goes online there."""
        machine = self.machine()
        for block in (66, 70):
            wrote(machine, f"{MEMORY}/memory{block}/state", "online_movable")
        assert self.zones(machine, 68) == "Movable Normal"
        assert self.zones(machine, 71) == "Normal Movable"
        wrote(machine, f"{MEMORY}/memory68/state", "online")
        assert self.zones(machine, 68) == "Movable"
        wrote(machine, f"{MEMORY}/memory70/state", "offline")
        assert self.zones(machine, 69) == "Normal Movable"

    def test_between_both(self):
        """Where a movable and a kernel zone overlap, the kernel zone comes first."""
        machine = self.machine()
        for block, word in (
            (64, "online_movable"),
            (66, "online_kernel"),
            (70, "online_movable"),
            (72, "online_kernel"),
        ):
            wrote(machine, f"{MEMORY}/memory{block}/state", word)
        assert self.zones(machine, 68) == "Normal Movable"

    def test_low_memory(self):
        """Below 4 GiB it is the low zone, if the node has it."""
        machine = tree(PLAIN)
        wrote(machine, f"{MEMORY}/memory4/state", "offline")
        assert self.zones(machine, 4) == "DMA32 Movable"

    def test_node_lists_follow(self):
        """A node of movable blocks has memory, but no normal memory; one without an online block has none."""
        machine = self.machine()
        assert read(machine, f"{NODE}/online") == "0-2"
        assert read(machine, f"{NODE}/has_memory") == "0-1"
        wrote(machine, f"{MEMORY}/memory70/state", "online_movable")
        assert ("0-2", "0-1") == tuple(read(machine, f"{NODE}/{file}") for file in ("has_memory", "has_normal_memory"))

    def test_memory_follows(self):
        """MemTotal, zoneinfo and iomem follow."""
        machine = tree(PLAIN)
        before = read(machine, "/proc/iomem")
        wrote(machine, f"{MEMORY}/memory70/state", "offline")
        total = read(machine, f"{NODE}/node2/meminfo").splitlines()[0]
        assert f"{15 * 128 * 1024} kB" in total
        wrote(machine, f"{MEMORY}/memory70/state", "online_movable")
        zones = read(machine, "/proc/zoneinfo").split("Node 2, zone ")
        movable = next(zone for zone in zones if zone.strip().startswith("Movable"))
        assert f"present  {128 * MIB // 4096}\n" in movable
        assert before == read(machine, "/proc/iomem")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("hotplug", Hotplug)
def test_tdx_veto(kernel, hotplug):
    """
    Memory that was hot-added outside TDX memory: reject keeps each block offline (EPERM, nothing printed),
    reject-range does not add it at all and says so, allow puts it online.
    """
    later = evolve(MIXED.nodes[1], memory=(*MIXED.nodes[1].memory, Memory(Range(16 * GIB, 17 * GIB), hotplug=True)))
    machine = tree(
        evolve(
            MIXED,
            kernel=kernel,
            nodes=(MIXED.nodes[0], later, MIXED.nodes[2]),
            policies=Policies(hotplug=hotplug, cover=Cover.RAM),
        )
    )
    log = format_dmesg(machine.machine.log)
    expected = {Hotplug.REJECT: "EPERM", Hotplug.REJECT_RANGE: "ENODEV", Hotplug.ALLOW: "EINVAL"}[hotplug]
    for word in ("online", "online_kernel", "online_movable"):
        assert expected == wrote(machine, f"{MEMORY}/memory128/state", word)
    assert log == format_dmesg(machine.machine.log)
    assert (hotplug is Hotplug.REJECT_RANGE) is ("Reject hot-adding memory range: 0x400000000-0x440000000" in log)


def test_a_tdx_block_goes_online_again():
    """TDX memory that went offline goes online."""
    machine = tree(evolve(MIXED, memory=MemoryLayout(offline="40")))

    assert wrote(machine, f"{MEMORY}/memory40/state", "online") == "ok"
