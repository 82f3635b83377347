"""CXL as far as it leads to dax devices; compare drivers/cxl/core/{port,region}.c.

The root, one root decoder per RAM region, its region and dax region, and the bridge to the
NVDIMM bus of persistent CXL memory. No ports, endpoints or memory devices.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from tdxfs import delta
from tdxfs.errors import Busy, InvalidValue
from tdxfs.model import DaxRegion, Machine, Provider
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, directories, link, links, ro, rw, wo
from tdxfs.sysfs.bus import Bus, DriverDir, FixedDriverDir
from tdxfs.sysfs.codec import BOOL, DECIMAL, HEX, LINE, UNSIGNED, WORD
from tdxfs.sysfs.dax import DaxDeviceDir, DaxRegionDir
from tdxfs.sysfs.nd import NdBusDir, buses
from tdxfs.sysfs.platform import PlatformDeviceDir
from tdxfs.sysfs.power import uevent


def regions(machine: Machine) -> Collection[int]:
    """Ids of the CXL RAM regions."""
    return machine.provider_regions[Provider.CXL]


def bridges(machine: Machine) -> Collection[int]:
    """Numbers of the bridges to an NVDIMM bus: one or none."""
    return (0,) if buses(machine, cxl=True) else ()


def roots(machine: Machine) -> Collection[int]:
    """Numbers of the CXL roots: one, or none on a machine without CXL."""
    return (0,) if regions(machine) or bridges(machine) else ()


def root_path(machine: Machine, number: int) -> str:
    return paths.CXL_ROOT


def bridge_path(machine: Machine, number: int) -> str:
    return f"{paths.CXL_ROOT}/nvdimm-bridge{number}"


def dax_region_path(machine: Machine, region: int) -> str:
    return paths.dax_parent(machine, (region, 0))


class CxlDeviceDir(Directory[Any]):
    """A device on the CXL bus; those of one region have its id as their key."""

    WHAT = "/sys/bus/cxl/devices/<device>"
    DEVTYPE: ClassVar[str] = ""
    NUMBER: ClassVar[int] = 0
    """The ``t<n>`` of its modalias."""
    DRIVER: ClassVar[str] = ""
    """Empty: none binds."""

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key]

    @ro(WORD)
    def devtype(self) -> str:
        """Kind of CXL device."""
        return self.DEVTYPE

    @ro(WORD)
    def modalias(self) -> str:
        """Modalias of the device."""
        return f"cxl:t{self.NUMBER}"

    @uevent
    def uevent(self) -> str:
        """Type, driver if there is one, and modalias."""
        driver = f"DRIVER={self.DRIVER}\n" if self.DRIVER else ""
        return f"DEVTYPE={self.DEVTYPE}\n{driver}MODALIAS=cxl:t{self.NUMBER}\n"

    @link
    def driver(self) -> str | None:
        """The driver it is bound to. Absent when unbound."""
        return f"{paths.bus('cxl')}/drivers/{self.DRIVER}" if self.DRIVER else None

    @link
    def subsystem(self) -> str:
        """The CXL bus."""
        return paths.bus("cxl")


class CxlDaxRegionDir(CxlDeviceDir):
    """The dax side of a CXL RAM region."""

    WHAT = "/sys/bus/cxl/devices/dax_region<id>"
    FOLLOWS = staticmethod(delta.regions)
    DEVTYPE, NUMBER, DRIVER = "cxl_dax_region", 8, "cxl_dax_region"

    dax_region = always(DaxRegionDir)

    @directories("dax<region>.<id>", DaxDeviceDir)
    def dax_devices(self) -> Collection[tuple[int, int]]:
        """The dax devices of the region."""
        return self.machine.region_devices.get(self.key, ())


WAYS = (1, 2, 3, 4, 6, 8, 12, 16)
GRANULARITIES = tuple(256 << shift for shift in range(7))


class CxlRegionDir(CxlDeviceDir):
    """A CXL RAM region."""

    WHAT = "/sys/bus/cxl/devices/region<id>"
    FOLLOWS = staticmethod(delta.regions)
    DEVTYPE, NUMBER, DRIVER = "cxl_region", 6, "cxl_region"

    @ro(WORD)
    def mode(self) -> str:
        """ram or pmem."""
        return "ram"

    @ro(HEX)
    def resource(self) -> int:
        """First physical address."""
        return self.region.range.start

    def _unless_other(self, value: int, now: int) -> Machine:
        # an active region keeps its configuration
        if value != now:
            raise Busy(f"{self.path} is active")
        return self.machine

    @rw(HEX, takes=UNSIGNED)
    def size(self) -> int:
        """Bytes, hexadecimal. EBUSY for another size: tdxfs has active regions only."""
        return self.region.range.size

    @size.store
    def _set_size(self, size: int) -> Machine:
        return self._unless_other(size, self.region.range.size)

    @rw(BOOL)
    def commit(self) -> bool:
        """1: its decoders are set up. EBUSY for 0: tdxfs does not take CXL regions apart."""
        return True

    @commit.store
    def _set_commit(self, on: bool) -> Machine:
        return self._unless_other(on, True)

    @ro(BOOL, since="7.3")
    def locked(self) -> bool:
        """1: its decoders cannot be changed."""
        return False

    @rw(DECIMAL, takes=UNSIGNED)
    def interleave_ways(self) -> int:
        """Number of devices it is interleaved over. EBUSY while it is active."""
        return 1

    @interleave_ways.store
    def _set_ways(self, ways: int) -> Machine:
        if ways not in WAYS:
            raise InvalidValue(f"{ways} is not one of {WAYS}")
        raise Busy(f"{self.path} is active")

    @rw(DECIMAL, takes=UNSIGNED)
    def interleave_granularity(self) -> int:
        """Bytes from one device before the next. EBUSY while it is active."""
        return 256

    @interleave_granularity.store
    def _set_granularity(self, granularity: int) -> Machine:
        if granularity not in GRANULARITIES:
            raise InvalidValue(f"{granularity} is not one of {GRANULARITIES}")
        raise Busy(f"{self.path} is active")

    @ro(LINE)
    def uuid(self) -> str:
        """Nothing: only persistent regions have one."""
        return ""

    @directories("dax_region<id>", CxlDaxRegionDir)
    def dax_regions(self) -> Collection[int]:
        """Its dax region."""
        return (self.key,)


class CxlDecoderDir(CxlDeviceDir):
    """A root decoder: a window of physical addresses. It is as large as the region in it."""

    WHAT = "/sys/bus/cxl/devices/decoder0.<id>"
    FOLLOWS = staticmethod(delta.regions)
    DEVTYPE, NUMBER = "cxl_decoder_root", 0

    @ro(HEX, mode=0o400)
    def start(self) -> int:
        """First physical address of the window."""
        return self.region.range.start

    @ro(HEX)
    def size(self) -> int:
        """Bytes of the window, hexadecimal."""
        return self.region.range.size

    @ro(BOOL)
    def cap_ram(self) -> bool:
        """1: the window can hold volatile memory."""
        return True

    @directories("region<id>", CxlRegionDir)
    def cxl_regions(self) -> Collection[int]:
        """The region in the window."""
        return (self.key,)


class CxlBridgeDir(CxlDeviceDir):
    """The bridge to the NVDIMM bus of persistent CXL memory."""

    WHAT = "/sys/bus/cxl/devices/nvdimm-bridge<id>"
    DEVTYPE, NUMBER, DRIVER = "cxl_nvdimm_bridge", 1, "cxl_nvdimm_bridge"

    @directories("ndbus<id>", NdBusDir)
    def buses(self) -> Collection[int]:
        """The NVDIMM bus."""
        return buses(self.machine, cxl=True)


class CxlRootDir(CxlDeviceDir):
    """The CXL root."""

    WHAT = "/sys/bus/cxl/devices/root<id>"
    DEVTYPE, NUMBER = "cxl_port", 4

    @directories("decoder0.<id>", CxlDecoderDir)
    def decoders(self) -> Collection[int]:
        """One per window that has a RAM region."""
        return regions(self.machine)

    @directories("nvdimm-bridge<id>", CxlBridgeDir)
    def bridges(self) -> Collection[int]:
        """The bridge to persistent memory."""
        return bridges(self.machine)


class CxlAcpiDir(PlatformDeviceDir):
    """The platform's description of CXL."""

    WHAT = "/sys/bus/platform/devices/ACPI0017:<id>"
    DRIVER, MODALIAS = "cxl_acpi", "acpi:ACPI0017:"

    @directories("root<id>", CxlRootDir)
    def roots(self) -> Collection[int]:
        """The CXL root."""
        return roots(self.machine)


class CxlDeviceLinks(Directory[Any]):
    """Devices of the CXL bus."""

    WHAT = "/sys/bus/cxl/devices"

    @links("root<id>", root_path)
    def roots(self) -> Collection[int]:
        """The CXL root."""
        return roots(self.machine)

    @links("decoder0.<id>", paths.cxl_decoder)
    def decoders(self) -> Collection[int]:
        """The root decoders."""
        return regions(self.machine)

    @links("region<id>", paths.cxl_region)
    def regions(self) -> Collection[int]:
        """The RAM regions."""
        return regions(self.machine)

    @links("dax_region<id>", dax_region_path)
    def dax_regions(self) -> Collection[int]:
        """Their dax sides."""
        return regions(self.machine)

    @links("nvdimm-bridge<id>", bridge_path)
    def bridges(self) -> Collection[int]:
        """The bridge to persistent memory."""
        return bridges(self.machine)


class CxlRegionDriver(DriverDir):
    """The driver of CXL regions."""

    WHAT = "/sys/bus/cxl/drivers/cxl_region"

    regions = CxlDeviceLinks.regions


class CxlDaxRegionDriver(FixedDriverDir):
    """The driver that makes dax devices of CXL RAM regions."""

    WHAT = "/sys/bus/cxl/drivers/cxl_dax_region"

    dax_regions = CxlDeviceLinks.dax_regions


class CxlBridgeDriver(FixedDriverDir):
    """The driver that makes an NVDIMM bus of persistent CXL memory."""

    WHAT = "/sys/bus/cxl/drivers/cxl_nvdimm_bridge"

    bridges = CxlDeviceLinks.bridges


class CxlDrivers(Directory[Any]):
    """Drivers of CXL devices."""

    WHAT = "/sys/bus/cxl/drivers"

    cxl_region = always(CxlRegionDriver)
    cxl_dax_region = always(CxlDaxRegionDriver)
    cxl_nvdimm_bridge = always(CxlBridgeDriver)


class CxlBus(Bus):
    """The CXL bus."""

    WHAT = paths.bus("cxl")

    devices = always(CxlDeviceLinks)
    drivers = always(CxlDrivers)
    flush = wo(WORD, "1: waits until probing has finished.")

    @flush.store
    def _flush(self, word: str) -> Machine:
        if word != "1":
            raise InvalidValue(f"{word!r} is not 1")
        return self.machine


DIRECTORIES = (CxlBus,)
