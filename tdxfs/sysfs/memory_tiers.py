"""``/sys/devices/virtual/memory_tiering``; compare mm/memory-tiers.c."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from tdxfs import delta, nodes
from tdxfs.model import Machine
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, directories, link, links, ro
from tdxfs.sysfs.bus import Bus
from tdxfs.sysfs.codec import LIST
from tdxfs.sysfs.power import DeviceDir, PowerDir

ROOT = "/sys/devices/virtual/memory_tiering"
DRAM_TIER = 4


@lru_cache(maxsize=4)
def tiers(machine: Machine) -> dict[int, frozenset[int]]:
    """Tier -> the nodes with memory online that belong to it; DRAM's is always there."""
    found: dict[int, set[int]] = {DRAM_TIER: set()}
    dax = machine.target_tiers
    for nid in nodes.has_memory(machine):
        own = machine.nodes.get(nid)
        slow = nid in dax and all(block.dax for _, _, block in machine.node_blocks[nid].runs())
        tier = dax[nid] if slow or own is None else own.memory_tier
        found.setdefault(tier, set()).add(nid)
    return {tier: frozenset(members) for tier, members in found.items()}


def _tier(machine: Machine, tier: int) -> str:
    return f"{ROOT}/memory_tier{tier}"


class TierDir(DeviceDir[int]):
    """Nodes whose memory performs alike."""

    WHAT = f"{ROOT}/memory_tier<id>"

    power = always(PowerDir)

    @ro(LIST)
    def nodelist(self) -> frozenset[int]:
        """The nodes of the tier."""
        return tiers(self.machine)[self.key]

    @link
    def subsystem(self) -> str:
        """The memory tiering bus."""
        return paths.bus("memory_tiering")


class TiersDir(DeviceDir[None]):
    """Memory tiers; a lower number is faster memory."""

    WHAT = ROOT
    FOLLOWS = staticmethod(delta.memory_nodes)

    power = always(PowerDir)

    @directories("memory_tier<id>", TierDir)
    def tiers(self) -> Collection[int]:
        """One per tier in use."""
        return tiers(self.machine)


class TierDevices(Directory[None]):
    """Devices of the memory tiering bus."""

    WHAT = "/sys/bus/memory_tiering/devices"
    FOLLOWS = staticmethod(delta.memory_nodes)

    @links("memory_tier<id>", _tier)
    def tiers(self) -> Collection[int]:
        """The memory tiers."""
        return tiers(self.machine)


class TierBus(Bus):
    """The memory tiering bus."""

    WHAT = paths.bus("memory_tiering")

    devices = always(TierDevices)


DIRECTORIES = (TiersDir, TierBus)
