"""dax devices and regions; compare drivers/dax/bus.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs.capability import judge_dax, judge_target_node
from tdxfs.model import PAGE_SIZE, DaxRegion, DaxState, Driver, kernel_at_least
from tdxfs.ranges import Range, Ranges
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Attribute, Directory, Tier, always, directories, link, ro, rw, subdirectory, wo
from tdxfs.sysfs.codec import BOOL, DECIMAL, HEX, LINE, NOTHING, TEXT, WORD
from tdxfs.sysfs.power import DeviceDir, PowerDir

Key = tuple[int, int]


class X86DaxDir(Directory[Key]):
    """What x86 says of a dax device."""

    WHAT = "/sys/bus/dax/devices/dax<region>.<id>/x86"
    TIER = Tier.PROPOSED

    @ro(BOOL)
    def tdx_capable(self) -> bool:
        """1 if every byte of the device's own memory can back a TDX guest, else 0."""
        return bool(judge_dax(self.machine, self.key))

    @ro(BOOL)
    def target_node_tdx_capable(self) -> bool:
        """
        1 if the target node would be TDX capable with this device onlined there, else 0; answers
        even while the node has no directory. Absent without a target node.
        """
        return bool(judge_target_node(self.machine, self.key))

    @target_node_tdx_capable.visible
    def _has_target(self) -> bool:
        return self.machine.regions[self.key[0]].target_node is not None


class MappingDir(DeviceDir[tuple[Key, int]]):
    """One range of a dax device; key: (device, index)."""

    WHAT = "/sys/bus/dax/devices/dax<region>.<id>/mapping<index>"

    power = always(PowerDir)

    @property
    def mappings(self) -> tuple[Range, ...]:
        return self.machine.dax[self.key[0]].mappings

    @ro(HEX, mode=0o400)
    def start(self) -> int:
        """First physical address of the range."""
        return self.mappings[self.key[1]].start

    @ro(HEX, mode=0o400)
    def end(self) -> int:
        """Last physical address of the range (inclusive)."""
        return self.mappings[self.key[1]].end - 1

    @ro(HEX, mode=0o400)
    def page_offset(self) -> int:
        """Where in the device the range begins, pages."""
        return sum(mapping.size for mapping in self.mappings[: self.key[1]]) // PAGE_SIZE


class DaxDeviceDir(DeviceDir[Key]):
    """A dax device."""

    WHAT = "/sys/bus/dax/devices/dax<region>.<id>"

    power = always(PowerDir)

    @property
    def device(self) -> DaxState:
        return self.machine.dax[self.key]

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key[0]]

    @rw(DECIMAL)
    def align(self) -> int:
        """Alignment of the device's ranges, bytes."""
        return self.device.align

    @rw(DECIMAL)
    def size(self) -> int:
        """Size of the device, bytes."""
        return self.device.size

    def _static_mode(self) -> int:
        # devices of static regions cannot be resized (dev_dax_visible)
        return 0o444 if self.region.static else 0o644

    align.mode_of(_static_mode)
    size.mode_of(_static_mode)

    mapping: Attribute[Any, None] = wo(NOTHING, "<start>-<end>, hexadecimal, end inclusive: a range to allocate.")

    @mapping.visible
    def _dynamic(self) -> bool:
        return not self.region.static

    @ro(DECIMAL)
    def target_node(self) -> int:
        """The node this memory would belong to if it were onlined. Absent if there is none."""
        assert self.region.target_node is not None
        return self.region.target_node

    @target_node.visible
    def _has_target(self) -> bool:
        return self.region.target_node is not None

    @ro(DECIMAL)
    def numa_node(self) -> int:
        """The nearest node that is online; -1 if unknown."""
        return -1 if self.region.numa_node is None else self.region.numa_node

    @ro(HEX, mode=0o400)
    def resource(self) -> int:
        """First physical address of the device, or of its region if it has size 0."""
        return self.device.mappings[0].start if self.device.mappings else self.region.range.start

    @ro(LINE)
    def modalias(self) -> str:
        """Modalias of the device."""
        return "dax:t0"

    @rw(BOOL, since="6.8")
    def memmap_on_memory(self) -> bool:
        """1: kmem keeps the page structures of the memory on the memory itself."""
        return self.device.memmap_on_memory

    @ro(LINE)
    def dev(self) -> str:
        """Major and minor number of /dev/dax<region>.<id>."""
        return f"{dax_major(self.machine.topology.kernel)}:{self.device.minor}"

    @rw(TEXT)
    def uevent(self) -> str:
        """Device numbers, name, driver and modalias."""
        driver = f"DRIVER={self.device.driver.value}\n" if self.device.driver else ""
        major = dax_major(self.machine.topology.kernel)
        return f"MAJOR={major}\nMINOR={self.device.minor}\nDEVNAME={self.device.name}\n{driver}MODALIAS=dax:t0\n"

    @rw(WORD, since="7.3")
    def state(self) -> str:
        """
        How kmem brought the whole device online: offline, online, online_kernel or online_movable;
        offline also where some of its memory did not go online. Absent unless bound to kmem.
        """
        layout, size = self.machine.topology.memory, self.machine.topology.memory.block_size
        online = all(
            block.online
            for part in Ranges.of(self.device.mappings).aligned_in(size)
            for _, _, block in self.machine.blocks.within(part.start // size, part.end // size)
        )
        return layout.auto_online if online else "offline"

    @state.visible
    def _is_kmem(self) -> bool:
        return self.device.driver is Driver.KMEM

    @subdirectory(X86DaxDir, tier=Tier.PROPOSED)
    def x86(self) -> bool:
        """TDX capability of the device and of its target node. Absent when the platform has no TDX."""
        return self.machine.topology.tdx is not None

    @link
    def driver(self) -> str | None:
        """The driver it is bound to. Absent when unbound."""
        driver = self.device.driver
        return f"{paths.bus('dax')}/drivers/{driver.value}" if driver else None

    @link
    def subsystem(self) -> str:
        """The dax bus."""
        return paths.bus("dax")

    @directories("mapping<index>", MappingDir, nested=True)
    def mappings(self) -> Collection[int]:
        """One per range, in the order of their page offsets."""
        return range(len(self.device.mappings))


def dax_major(kernel: str) -> int:
    """Major number of ``/dev/daxX.Y``: dynamic in Linux, these were seen."""
    return 251 if kernel_at_least(kernel, "7.3") else 252


class DaxRegionDir(Directory[Any]):
    """A dax region; key: region id."""

    WHAT = "/sys/bus/dax/devices/dax<region>.<id>/../dax_region"

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key]

    @ro(DECIMAL)
    def id(self) -> int:
        """Id of the region."""
        return self.region.id

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes of the region."""
        return self.region.range.size

    @ro(DECIMAL, mode=0o400)
    def align(self) -> int:
        """Alignment of its devices, bytes."""
        return self.region.align

    @ro(DECIMAL)
    def available_size(self) -> int:
        """Bytes that no device has. Absent in static regions."""
        keys = self.machine.region_devices.get(self.region.id, ())
        return self.region.range.size - sum(self.machine.dax[key].size for key in keys)

    def _name(self, device: int | None) -> str:
        return "" if device is None else f"dax{self.region.id}.{device}"

    @ro(LINE)
    def seed(self) -> str:
        """The first idle device that was created, or nothing. Absent in static regions."""
        return self._name(self.region.seed)

    @rw(LINE)
    def create(self) -> str:
        """The youngest device that was created, or nothing; writing 1 makes one. Absent in static regions."""
        return self._name(self.region.youngest)

    delete: Attribute[Any, None] = wo(NOTHING, "The name of a device to delete. Absent in static regions.")

    def _dynamic(self) -> bool:
        return not self.region.static

    available_size.visible(_dynamic)
    seed.visible(_dynamic)
    create.visible(_dynamic)
    delete.visible(_dynamic)
