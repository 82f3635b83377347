"""``/sys/devices/system/memory``: memory blocks; compare drivers/base/memory.c."""

from __future__ import annotations

from collections.abc import Collection

from tdxfs import delta
from tdxfs.capability import judge_block
from tdxfs.errors import NoAddress, NotSupported
from tdxfs.model import Block, Machine
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, Tier, always, directories, link, links, ro, rw, wo
from tdxfs.sysfs.codec import BARE_HEX, BLOCK_INDEX, BOOL, DECIMAL, LINE, UNSIGNED, WORD
from tdxfs.sysfs.power import DeviceDir, PowerDir
from tdxfs.transitions.memory import set_auto_online, set_block_online, set_block_state
from tdxfs.zones import valid_zones


class X86BlockDir(Directory[int]):
    """What x86 says of a memory block. Absent when the platform has no TDX."""

    WHAT = "/sys/devices/system/memory/memory<id>/x86"
    TIER = Tier.PROPOSED

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where the platform has TDX."""
        return machine.topology.tdx is not None

    @ro(BOOL)
    def tdx_capable(self) -> bool:
        """1 if every page of the block that can be given away can back a TDX guest, else 0."""
        return bool(judge_block(self.machine, self.key))


class MemoryBlockDir(DeviceDir[int]):
    """A memory block: the unit in which memory goes online and offline."""

    WHAT = "/sys/devices/system/memory/memory<id>"
    FOLLOWS = staticmethod(delta.blocks)

    power = always(PowerDir)

    @property
    def block(self) -> Block:
        block = self.machine.blocks.get(self.key)
        assert block is not None
        return block

    @rw(BOOL)
    def online(self) -> bool:
        """1 if the block is online."""
        return self.block.online

    @online.store
    def _set_online(self, on: bool) -> Machine:
        return set_block_online(self.machine, self.key, on)

    @ro(DECIMAL)
    def phys_device(self) -> int:
        """Always 0."""
        return 0

    @ro(BLOCK_INDEX)
    def phys_index(self) -> int:
        """The block's number: its address divided by block_size_bytes."""
        return self.key

    @ro(BOOL)
    def removable(self) -> bool:
        """1 if the kernel can remove memory at all."""
        return True

    @rw(WORD)
    def state(self) -> str:
        """online or offline."""
        return "online" if self.block.online else "offline"

    @state.store
    def _set_state(self, word: str) -> Machine:
        return set_block_state(self.machine, self.key, word)

    @ro(LINE)
    def valid_zones(self) -> str:
        """
        Online: the block's zone, or none if it has several. Offline: the zones it
        can join, the default first.
        """
        zones = valid_zones(self.machine, self.key, self.block)
        return " ".join(zone.value for zone in zones) or "none"

    x86 = always(X86BlockDir, tier=Tier.PROPOSED)

    @link
    def subsystem(self) -> str:
        """The memory bus."""
        return paths.bus("memory")

    @links("node<id>", paths.node)
    def nodes(self) -> Collection[int]:
        """The nodes whose memory lies in the block."""
        return self.block.nodes


class MemoryRoot(DeviceDir[None]):
    """Memory blocks, and how memory is divided into them."""

    WHAT = paths.MEMORY_ROOT

    power = always(PowerDir)

    @ro(BARE_HEX)
    def block_size_bytes(self) -> int:
        """Bytes of a memory block, hexadecimal without 0x."""
        return self.machine.topology.memory.block_size

    @rw(WORD)
    def auto_online_blocks(self) -> str:
        """What happens to hot-added blocks: offline, online, online_kernel or online_movable."""
        return self.machine.auto_online

    @auto_online_blocks.store
    def _set_auto_online(self, word: str) -> Machine:
        return set_auto_online(self.machine, word)

    @ro(BOOL, since="6.12")
    def crash_hotplug(self) -> bool:
        """1 if the crash kernel follows memory hotplug by itself."""
        return False

    hard_offline_page = wo(
        UNSIGNED,
        "A physical address whose page is taken out of use with its content lost. ENXIO where there is no memory, "
        "EOPNOTSUPP in tdxfs where there is.",
    )
    soft_offline_page = wo(
        UNSIGNED,
        "A physical address whose page is taken out of use after its content has moved. ENXIO where there is no "
        "memory, EOPNOTSUPP in tdxfs where there is.",
    )

    def _poison(self, address: int) -> Machine:
        if address not in self.machine.ram:
            raise NoAddress(f"no memory at {address:#x}")
        raise NotSupported("tdxfs takes no single page out of use")

    hard_offline_page.store(_poison)
    soft_offline_page.store(_poison)

    @directories("memory<id>", MemoryBlockDir)
    def memory_blocks(self) -> Collection[int]:
        """One per memory block that is there."""
        return self.machine.blocks


DIRECTORIES = (MemoryRoot,)
