"""NVDIMM buses, regions and devdax namespaces; compare drivers/nvdimm/{bus,region_devs,dax_devs}.c.

What leads to dax devices is here: no DIMMs, labels or other kinds of namespaces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

from tdxfs import delta
from tdxfs.errors import Busy, NoAddress
from tdxfs.model import MIB, DaxRegion, DaxState, Machine
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Attribute, Directory, directories, link, ro, rw, subdirectory
from tdxfs.sysfs.codec import BOOL, DECIMAL, HEX, LINE, TEXT, WORD, Codec
from tdxfs.sysfs.dax import DaxDeviceDir, DaxRegionDir
from tdxfs.sysfs.knob import knob
from tdxfs.sysfs.power import uevent
from tdxfs.transitions.dax import lowest_free

K = TypeVar("K")
Key = tuple[int, int]


def active(machine: Machine, region: int) -> dict[Key, Key]:
    """The nd devices of a region's namespaces in devdax mode -> their dax devices, which may have other numbers."""
    return {(region, machine.dax[key].nd): key for key in machine.region_devices.get(region, ())}


def seed_of(machine: Machine, region: int) -> Key:
    """The idle nd device that waits for the region's next namespace."""
    known = machine.regions[region].seed
    return region, lowest_free({nd for _, nd in active(machine, region)}) if known is None else known


def _changed(old: Machine, new: Machine) -> Collection[Key]:
    # the nd devices whose dax device differs
    return [
        (key[0], machine.dax[key].nd) for key in delta.dax(old, new) for machine in (old, new) if key in machine.dax
    ]


class NdDaxRegionDir(DaxRegionDir):
    """The dax region of a namespace; key: that of its nd device."""

    WHAT = "/sys/bus/nd/devices/dax<region>.<id>/dax_region"

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key[0]]

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes of the region: those of its one device."""
        return self.machine.dax[active(self.machine, self.key[0])[self.key]].size


def fixed(codec: Codec[Any]) -> Callable[[Callable[[Any], Any]], Attribute[Any, Any]]:
    """
    A file that configures a namespace's device. A device that has its driver is EBUSY in Linux; tdxfs says so of
    an idle one too: its namespaces do not change.
    """

    def declare(show: Callable[[Any], Any]) -> Attribute[Any, Any]:
        attribute: Attribute[Any, Any] = rw(codec, takes=TEXT)(show)

        @attribute.store
        def refuse(directory: Any, text: str) -> Machine:
            raise Busy(f"{directory.path} does not change")

        return attribute

    return declare


class _NearDir(Directory[K]):
    # of a region: where its memory is near, and where it would belong
    @property
    def region(self) -> DaxRegion:
        raise NotImplementedError

    @ro(DECIMAL)
    def numa_node(self) -> int:
        """The nearest node that is online; -1 if unknown."""
        return -1 if self.region.numa_node is None else self.region.numa_node

    @ro(DECIMAL)
    def target_node(self) -> int:
        """The node its memory would belong to; -1 if there is none."""
        return -1 if self.region.target_node is None else self.region.target_node


class NdDaxDir(_NearDir[Key]):
    """A namespace in devdax mode, or the idle device that waits for one; key: (region id, instance)."""

    WHAT = "/sys/bus/nd/devices/dax<region>.<id>"
    FOLLOWS = staticmethod(_changed)

    @property
    def dax(self) -> Key | None:
        """Key of the dax device."""
        return active(self.machine, self.key[0]).get(self.key)

    @property
    def device(self) -> DaxState | None:
        return None if self.dax is None else self.machine.dax[self.dax]

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key[0]]

    def _active(self) -> DaxState:
        if self.device is None:
            raise NoAddress("idle")
        return self.device

    @ro(WORD)
    def devtype(self) -> str:
        """Always nd_dax."""
        return "nd_dax"

    @ro(WORD)
    def modalias(self) -> str:
        """Modalias of the device."""
        return "nd:t7"

    @uevent
    def uevent(self) -> str:
        """Type, driver and modalias."""
        driver = "DRIVER=dax_pmem\n" if self.device else ""
        return f"DEVTYPE=nd_dax\n{driver}MODALIAS=nd:t7\n"

    @fixed(WORD)
    def mode(self) -> str:
        """Where page structures live: ram, or pmem, the namespace itself; none while idle."""
        if self.device is None:
            return "none"
        return "pmem" if self.device.map_on_pmem else "ram"

    @fixed(LINE)
    def namespace(self) -> str:
        """The namespace behind it, or nothing."""
        return f"namespace{self.key[0]}.{self.device.id}" if self.device else ""

    @ro(HEX, mode=0o400)
    def resource(self) -> int:
        """First physical address; ENXIO while idle."""
        return self._active().mappings[0].start

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes; ENXIO while idle."""
        return self._active().size

    @fixed(DECIMAL)
    def align(self) -> int:
        """Alignment, bytes; while idle that of a huge page."""
        return self.device.align if self.device else 2 * MIB

    @ro(LINE)
    def supported_alignments(self) -> str:
        """The alignments it can have, bytes."""
        return "4096 2097152 1073741824 "

    @fixed(LINE)
    def uuid(self) -> str:
        """Its identity, or nothing while idle."""
        if self.device is None:
            return ""
        return self.region.uuid or str(uuid5(NAMESPACE_OID, f"{self.machine.topology.name}/{self.device.name}"))

    @link
    def driver(self) -> str | None:
        """The driver that made the dax device. Absent while idle."""
        return f"{paths.bus('nd')}/drivers/dax_pmem" if self.device else None

    @link
    def subsystem(self) -> str:
        """The NVDIMM bus."""
        return paths.bus("nd")

    @subdirectory(NdDaxRegionDir)
    def dax_region(self) -> bool:
        """The dax region. Absent while idle."""
        return self.device is not None

    @directories("dax<region>.<id>", DaxDeviceDir)
    def dax_devices(self) -> Collection[Key]:
        """The dax device."""
        return () if self.dax is None else (self.dax,)


class NdRegionDir(_NearDir[int]):
    """An NVDIMM region; key: region id."""

    WHAT = "/sys/bus/nd/devices/region<id>"
    FOLLOWS = staticmethod(delta.regions)

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key]

    @ro(WORD)
    def devtype(self) -> str:
        """Always nd_pmem."""
        return "nd_pmem"

    @ro(WORD)
    def modalias(self) -> str:
        """Modalias of the device."""
        return "nd:t2"

    @uevent
    def uevent(self) -> str:
        """Type, driver and modalias."""
        return "DEVTYPE=nd_pmem\nDRIVER=nd_region\nMODALIAS=nd:t2\n"

    @ro(HEX, mode=0o400)
    def resource(self) -> int:
        """First physical address."""
        return self.region.range.start

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes."""
        return self.region.range.size

    @knob(BOOL)
    def read_only(self) -> bool:
        """1: nothing may be written to it."""
        return False

    @ro(LINE)
    def dax_seed(self) -> str:
        """The idle device that waits for a namespace."""
        region, instance = seed_of(self.machine, self.key)
        return f"dax{region}.{instance}"

    @link
    def driver(self) -> str:
        """The region driver."""
        return f"{paths.bus('nd')}/drivers/nd_region"

    @link
    def subsystem(self) -> str:
        """The NVDIMM bus."""
        return paths.bus("nd")

    @directories("dax<region>.<id>", NdDaxDir)
    def nd_devices(self) -> Collection[Key]:
        """The namespaces in devdax mode, and one idle device."""
        return (*active(self.machine, self.key), seed_of(self.machine, self.key))


class NdBusDir(Directory[int]):
    """An NVDIMM bus; key: its number."""

    WHAT = "/sys/bus/nd/devices/ndbus<id>"

    def _is_cxl(self) -> bool:
        return list(self.machine.nd_buses)[self.key]

    @ro(LINE)
    def provider(self) -> str:
        """Who described it: ACPI.NFIT or CXL."""
        return "CXL" if self._is_cxl() else "ACPI.NFIT"

    @ro(LINE)
    def commands(self) -> str:
        """The commands its ioctl takes."""
        return "" if self._is_cxl() else "cmd_call "

    @ro(BOOL)
    def wait_probe(self) -> bool:
        """1, once everything below it has been probed."""
        return True

    @uevent
    def uevent(self) -> str:
        """Driver and modalias."""
        return "DRIVER=nd_bus\nMODALIAS=nd:t0\n"

    @link
    def driver(self) -> str:
        """The bus driver."""
        return f"{paths.bus('nd')}/drivers/nd_bus"

    @link
    def subsystem(self) -> str:
        """The NVDIMM bus type."""
        return paths.bus("nd")

    @directories("region<id>", NdRegionDir)
    def regions(self) -> Collection[int]:
        """The regions of the bus."""
        return self.machine.nd_buses[self._is_cxl()]


def buses(machine: Machine, *, cxl: bool) -> Collection[int]:
    """Numbers of the buses of the CXL devices or of the firmware's table: one or none."""
    return (list(machine.nd_buses).index(cxl),) if cxl in machine.nd_buses else ()
