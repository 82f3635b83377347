"""The devices that dax devices hang below: hmem, NVDIMM and CXL.

Compare drivers/dax/hmem/hmem.c, drivers/nvdimm/dax_devs.c, drivers/cxl/core/region.c. Only what
leads to dax devices is here; paths differ by kernel (`paths.dax_parent`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from tdxfs.errors import NoAddress
from tdxfs.model import DaxRegion, DaxState, Machine, Provider, kernel_at_least
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, directories, link, ro, rw, subdirectory
from tdxfs.sysfs.codec import DECIMAL, HEX, LINE, TEXT, WORD
from tdxfs.sysfs.dax import DaxDeviceDir, DaxRegionDir
from tdxfs.sysfs.power import PowerDir


def regions_of(machine: Machine, provider: Provider) -> Collection[int]:
    """Ids of the regions of one provider."""
    if provider is Provider.HMEM and len(machine.regions) > 1:
        # the common large case: look-ups must not scan
        return _Only(machine, provider)
    return [region.id for region in machine.regions.values() if region.provider is provider]


class _Only(Collection[int]):
    def __init__(self, machine: Machine, provider: Provider) -> None:
        self.machine, self.provider = machine, provider

    def __contains__(self, region: object) -> bool:
        found = self.machine.regions.get(region) if isinstance(region, int) else None
        return found is not None and found.provider is self.provider

    def __iter__(self) -> Any:
        return (region.id for region in self.machine.regions.values() if region.provider is self.provider)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Parent(Directory[Any]):
    """A device with a dax region; key: region id."""

    dax_region = always(DaxRegionDir)

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key]

    @directories("dax<region>.<id>", DaxDeviceDir)
    def dax_devices(self) -> Collection[tuple[int, int]]:
        """The dax devices of the region."""
        return self.machine.region_devices.get(self.key, ())


class HmemDir(_Parent):
    """A range of soft-reserved memory."""

    WHAT = "/sys/devices/platform/hmem.<id>"

    power = always(PowerDir)

    @rw(TEXT)
    def uevent(self) -> str:
        """Driver and modalias."""
        return "DRIVER=hmem\nMODALIAS=platform:hmem\n"

    @ro(LINE)
    def modalias(self) -> str:
        """Modalias of the device."""
        return "platform:hmem"

    @rw(LINE)
    def driver_override(self) -> str:
        """The only driver that may bind; (null): any."""
        return "(null)"

    @ro(DECIMAL)
    def numa_node(self) -> int:
        """The nearest node that is online; -1 if unknown."""
        return -1 if self.region.numa_node is None else self.region.numa_node

    @link
    def driver(self) -> str:
        """The hmem driver."""
        return f"{paths.bus('platform')}/drivers/hmem"

    @link
    def subsystem(self) -> str:
        """The platform bus."""
        return paths.bus("platform")


class NdDaxDir(Directory[tuple[int, int]]):
    """An NVDIMM namespace in devdax mode, or the idle device that waits for one; key: (region id, instance)."""

    WHAT = "/sys/devices/platform/ACPI0012:00/ndbus0/region<region>/dax<region>.<id>"

    @property
    def device(self) -> DaxState | None:
        return self.machine.dax.get(self.key)

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

    @rw(TEXT)
    def uevent(self) -> str:
        """Type, driver and modalias."""
        driver = "DRIVER=dax_pmem\n" if self.device else ""
        return f"DEVTYPE=nd_dax\n{driver}MODALIAS=nd:t7\n"

    @rw(WORD)
    def mode(self) -> str:
        """Where page structures live: ram or pmem; none while idle."""
        return "ram" if self.device else "none"

    @rw(LINE)
    def namespace(self) -> str:
        """The namespace behind it, or nothing."""
        return f"namespace{self.key[0]}.{self.key[1]}" if self.device else ""

    @ro(DECIMAL)
    def numa_node(self) -> int:
        """The nearest node that is online; -1 if unknown."""
        return -1 if self.region.numa_node is None else self.region.numa_node

    @ro(DECIMAL)
    def target_node(self) -> int:
        """The node its memory would belong to."""
        return -1 if self.region.target_node is None else self.region.target_node

    @ro(HEX, mode=0o400)
    def resource(self) -> int:
        """First physical address; ENXIO while idle."""
        return self._active().mappings[0].start

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes; ENXIO while idle."""
        return self._active().size

    @rw(DECIMAL)
    def align(self) -> int:
        """Alignment, bytes."""
        return self.device.align if self.device else self.region.align

    @ro(LINE)
    def supported_alignments(self) -> str:
        """The alignments it can have, bytes."""
        return "4096 2097152 1073741824 "

    @rw(LINE)
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

    @directories("dax<region>.<id>", DaxDeviceDir)
    def dax_devices(self) -> Collection[tuple[int, int]]:
        """The dax device."""
        return (self.key,) if self.device else ()


class NdDaxRegionDir(DaxRegionDir):
    """The region of a namespace; key: (region id, instance)."""

    WHAT = "/sys/devices/platform/ACPI0012:00/ndbus0/region<region>/dax<region>.<id>/dax_region"

    @property
    def region(self) -> DaxRegion:
        return self.machine.regions[self.key[0]]  # type: ignore[index]

    @ro(DECIMAL)
    def id(self) -> int:
        """Id of the region."""
        return int(self.key[0])  # type: ignore[index]


NdDaxDir.DECLARED["dax_region"] = subdirectory(NdDaxRegionDir, name="dax_region")(lambda self: self.device is not None)


class NdRegionDir(Directory[int]):
    """An NVDIMM region; key: region id."""

    WHAT = "/sys/devices/platform/ACPI0012:00/ndbus0/region<id>"

    @directories("dax<region>.<id>", NdDaxDir)
    def nd_devices(self) -> Collection[tuple[int, int]]:
        """The namespaces in devdax mode, and one idle device more."""
        mine = self.machine.region_devices.get(self.key, ())
        return (*mine, (self.key, mine[-1][1] + 1 if mine else 0))


class NdBusDir(Directory[Any]):
    """The NVDIMM bus of the firmware's NFIT."""

    WHAT = "/sys/devices/platform/ACPI0012:00/ndbus0"

    @directories("region<id>", NdRegionDir)
    def regions(self) -> Collection[int]:
        """The regions."""
        return regions_of(self.machine, Provider.NVDIMM)


class NfitDir(Directory[Any]):
    """The ACPI device of the NFIT."""

    WHAT = "/sys/devices/platform/ACPI0012:00"

    ndbus0 = always(NdBusDir)


class CxlDaxRegionDir(_Parent):
    """The dax region of a CXL RAM region."""

    WHAT = "/sys/devices/platform/ACPI0017:00/root0/decoder0.<id>/region<id>/dax_region<id>"

    @ro(WORD)
    def devtype(self) -> str:
        """Always cxl_dax_region."""
        return "cxl_dax_region"

    @ro(WORD)
    def modalias(self) -> str:
        """Modalias of the device."""
        return "cxl:t8"

    @rw(TEXT)
    def uevent(self) -> str:
        """Type, driver and modalias."""
        return "DEVTYPE=cxl_dax_region\nDRIVER=cxl_dax_region\nMODALIAS=cxl:t8\n"

    @link
    def driver(self) -> str:
        """The driver that made the region."""
        return f"{paths.bus('cxl')}/drivers/cxl_dax_region"

    @link
    def subsystem(self) -> str:
        """The CXL bus."""
        return paths.bus("cxl")


class CxlRegionDir(Directory[int]):
    """A CXL region; key: region id."""

    WHAT = "/sys/devices/platform/ACPI0017:00/root0/decoder0.<id>/region<id>"

    @directories("dax_region<id>", CxlDaxRegionDir)
    def dax_regions(self) -> Collection[int]:
        """Its dax region."""
        return (self.key,)


class CxlDecoderDir(Directory[int]):
    """A root decoder, one per window; key: region id."""

    WHAT = "/sys/devices/platform/ACPI0017:00/root0/decoder0.<id>"

    @directories("region<id>", CxlRegionDir)
    def regions(self) -> Collection[int]:
        """The region in the window."""
        return (self.key,)


class CxlRootDir(Directory[Any]):
    """The CXL root."""

    WHAT = "/sys/devices/platform/ACPI0017:00/root0"

    @directories("decoder0.<id>", CxlDecoderDir)
    def decoders(self) -> Collection[int]:
        """One per window that has a region."""
        return regions_of(self.machine, Provider.CXL)


class CxlAcpiDir(Directory[Any]):
    """The ACPI device of CXL."""

    WHAT = "/sys/devices/platform/ACPI0017:00"

    root0 = always(CxlRootDir)


def _has(machine: Machine, provider: Provider) -> bool:
    return len(regions_of(machine, provider)) > 0


class HmemPlatformDir(Directory[Any]):
    """Soft-reserved memory."""

    WHAT = "/sys/devices/platform/hmem_platform.0"

    @directories("hmem.<id>", HmemDir)
    def hmem(self) -> Collection[int]:
        """One per soft-reserved range."""
        return regions_of(self.machine, Provider.HMEM)


class PlatformDir(Directory[Any]):
    """Platform devices."""

    WHAT = "/sys/devices/platform"

    @directories("hmem.<id>", HmemDir)
    def hmem(self) -> Collection[int]:
        """Soft-reserved ranges, up to 7.2."""
        old = not kernel_at_least(self.machine.topology.kernel, "7.3")
        return regions_of(self.machine, Provider.HMEM) if old else ()

    @subdirectory(HmemPlatformDir, name="hmem_platform.0", since="7.3")
    def hmem_platform(self) -> bool:
        """Soft-reserved memory. Absent where there is none."""
        return _has(self.machine, Provider.HMEM)

    @subdirectory(NfitDir, name="ACPI0012:00", since="7.3")
    def nfit(self) -> bool:
        """NVDIMMs. Absent where there is none; elsewhere up to 7.2."""
        return _has(self.machine, Provider.NVDIMM)

    @subdirectory(CxlAcpiDir, name="ACPI0017:00")
    def cxl(self) -> bool:
        """CXL. Absent where there is none."""
        return _has(self.machine, Provider.CXL)


class AcpiSystemBusDir(Directory[Any]):
    """ACPI devices, up to 7.2."""

    WHAT = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00"

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where something hangs below it."""
        return not kernel_at_least(machine.topology.kernel, "7.3") and _has(machine, Provider.NVDIMM)

    @subdirectory(NfitDir, name="ACPI0012:00")
    def nfit(self) -> bool:
        """NVDIMMs."""
        return True


DIRECTORIES = (PlatformDir, AcpiSystemBusDir)
