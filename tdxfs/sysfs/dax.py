"""dax devices and regions; compare drivers/dax/bus.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import delta
from tdxfs.capability import judge_dax, judge_target_node
from tdxfs.errors import NoAddress, OutOfRange
from tdxfs.model import PAGE_SIZE, DaxRegion, DaxState, Driver, Machine, RegionState, kernel_at_least
from tdxfs.ranges import Range
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Attribute, Directory, Tier, always, directories, link, ro, rw, wo
from tdxfs.sysfs.codec import ADDRESSES, BOOL, DECIMAL, HEX, INT, LINE, UNSIGNED, WORD, Codec
from tdxfs.sysfs.power import DeviceDir, PowerDir, uevent
from tdxfs.transitions import dax, kmem

Key = tuple[int, int]


def _align(text: str) -> int:
    try:
        return UNSIGNED.scan(text)
    except (ValueError, OutOfRange):
        raise NoAddress(f"{text!r} is not a number") from None


ALIGN: Codec[int] = Codec("a number", str, _align)
"""align_store() calls what it cannot read ENXIO."""


class X86DaxDir(Directory[Key]):
    """What x86 says of a dax device. Absent when the platform has no TDX."""

    WHAT = "/sys/bus/dax/devices/dax<region>.<id>/x86"
    TIER = Tier.PROPOSED

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where the platform has TDX."""
        return machine.topology.tdx is not None

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
    FOLLOWS = staticmethod(delta.dax)

    power = always(PowerDir)

    @property
    def device(self) -> DaxState:
        return self.machine.dax[self.key]

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key[0]]

    @rw(DECIMAL, takes=ALIGN)
    def align(self) -> int:
        """Alignment of the device's ranges, bytes."""
        return self.device.align

    @align.store
    def _set_align(self, align: int) -> Machine:
        return dax.set_align(self.machine, self.key, align)

    @rw(DECIMAL, takes=UNSIGNED)
    def size(self) -> int:
        """Size of the device, bytes."""
        return self.device.size

    @size.store
    def _set_size(self, size: int) -> Machine:
        return dax.resize(self.machine, self.key, size)

    def _static_mode(self) -> int:
        # devices of static regions cannot be resized (dev_dax_visible)
        return 0o444 if self.region.static else 0o644

    align.mode_of(_static_mode)
    size.mode_of(_static_mode)

    mapping: Attribute[Any, tuple[int, int]] = wo(
        ADDRESSES, "<start>-<end>, hexadecimal, end inclusive: a range to allocate."
    )

    @mapping.store
    def _add_mapping(self, addresses: tuple[int, int]) -> Machine:
        return dax.add_mapping(self.machine, self.key, *addresses)

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

    @memmap_on_memory.store
    def _set_memmap_on_memory(self, on: bool) -> Machine:
        return dax.set_memmap_on_memory(self.machine, self.key, on)

    @ro(LINE)
    def dev(self) -> str:
        """Major and minor number of /dev/dax<region>.<id>."""
        return f"{dax_major(self.machine.topology.kernel)}:{self.device.minor}"

    @uevent
    def uevent(self) -> str:
        """Device numbers, name, driver and modalias."""
        driver = f"DRIVER={self.device.driver.value}\n" if self.device.driver else ""
        major = dax_major(self.machine.topology.kernel)
        return f"MAJOR={major}\nMINOR={self.device.minor}\nDEVNAME={self.device.name}\n{driver}MODALIAS=dax:t0\n"

    @rw(WORD, since="7.3")
    def state(self) -> str:
        """
        Written: online, online_kernel or online_movable to add all of the device's memory, unplugged to take all
        of it away. Reads how that was done last; offline if auto_online_blocks said so when kmem took the device.
        Absent unless bound to kmem.
        """
        return self.device.plugged

    @state.store
    def _set_state(self, word: str) -> Machine:
        return kmem.set_state(self.machine, self.key, word)

    @state.visible
    def _is_kmem(self) -> bool:
        return self.device.driver is Driver.KMEM

    x86 = always(X86DaxDir, tier=Tier.PROPOSED)

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
        return dax.available(self.machine, self.region)

    @property
    def _state(self) -> RegionState:
        return self.machine.dax_regions.get(self.key, RegionState())

    def _name(self, device: int | None) -> str:
        return "" if device is None else f"dax{self.key}.{device}"

    @ro(LINE)
    def seed(self) -> str:
        """The first idle device that was created, or nothing. Absent in static regions."""
        return self._name(self._state.seed)

    @rw(LINE, takes=INT)
    def create(self) -> str:
        """The youngest device that was created, or nothing; writing 1 makes one. Absent in static regions."""
        return self._name(self._state.youngest)

    @create.store
    def _create(self, value: int) -> Machine:
        return dax.create(self.machine, self.key, value)

    delete: Attribute[Any, str] = wo(LINE, "The name of a device to delete. Absent in static regions.")

    @delete.store
    def _delete(self, name: str) -> Machine:
        return dax.delete(self.machine, self.key, name)

    def _dynamic(self) -> bool:
        return not self.region.static

    available_size.visible(_dynamic)
    seed.visible(_dynamic)
    create.visible(_dynamic)
    delete.visible(_dynamic)
