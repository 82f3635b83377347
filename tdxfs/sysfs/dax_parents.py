"""Where the devices hang that dax devices hang below: the platform bus and, up to 7.2, ACPI.

Paths differ by kernel (`paths.dax_parent`); the devices are in `hmem`, `nd` and `cxl`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs.model import Machine, kernel_at_least
from tdxfs.sysfs import cxl, hmem, nd_bus, paths
from tdxfs.sysfs.attribute import Directory, always, directories, links
from tdxfs.sysfs.bus import Bus, DriverDir
from tdxfs.sysfs.nd import NdBusDir, buses
from tdxfs.sysfs.platform import AcpiDeviceDir, PlatformDeviceDir


def _new(machine: Machine) -> bool:
    return kernel_at_least(machine.topology.kernel, "7.3")


def nfit_devices(machine: Machine) -> Collection[int]:
    """Numbers of the firmware's NVDIMM tables: one or none."""
    return (0,) if buses(machine, cxl=False) else ()


def platform_nfit(machine: Machine) -> Collection[int]:
    """Those that are on the platform bus, as since 7.3."""
    return nfit_devices(machine) if _new(machine) else ()


def acpi_nfit(machine: Machine) -> Collection[int]:
    """Those that are ACPI devices, as up to 7.2."""
    return () if _new(machine) else nfit_devices(machine)


def platform_hmem(machine: Machine) -> Collection[int]:
    """Soft-reserved ranges that stand on the platform bus by themselves, as up to 7.2."""
    return () if _new(machine) else hmem.regions(machine)


def _platform_device(name: str) -> Any:
    def path(machine: Machine, number: int) -> str:
        return f"{paths.PLATFORM_ROOT}/{name}:{number:02}"

    return path


class NfitDir(PlatformDeviceDir):
    """The firmware's NVDIMM table, since 7.3."""

    WHAT = "/sys/bus/platform/devices/ACPI0012:0<id>"
    DRIVER, MODALIAS = "acpi-nfit", "acpi:ACPI0012:"

    @directories("ndbus<id>", NdBusDir)
    def buses(self) -> Collection[int]:
        """The NVDIMM bus."""
        return buses(self.machine, cxl=False)


class AcpiNfitDir(AcpiDeviceDir):
    """The firmware's NVDIMM table, up to 7.2."""

    WHAT = "/sys/bus/acpi/devices/ACPI0012:0<id>"
    HID, DRIVER = "ACPI0012", "nfit"

    @directories("ndbus<id>", NdBusDir)
    def buses(self) -> Collection[int]:
        """The NVDIMM bus."""
        return buses(self.machine, cxl=False)


class PlatformDir(Directory[Any]):
    """Platform devices."""

    WHAT = paths.PLATFORM_ROOT
    SHARED = True

    @directories("hmem.<id>", hmem.HmemDir)
    def hmem_ranges(self) -> Collection[int]:
        """Soft-reserved ranges, up to 7.2."""
        return platform_hmem(self.machine)

    @directories("hmem_platform.<id>", hmem.HmemPlatformDir)
    def hmem_platform(self) -> Collection[int]:
        """Soft-reserved memory, since 7.3."""
        return hmem.platform_devices(self.machine)

    @directories("ACPI0012:0<id>", NfitDir)
    def nfit(self) -> Collection[int]:
        """The firmware's NVDIMM table, since 7.3."""
        return platform_nfit(self.machine)

    @directories("ACPI0017:0<id>", cxl.CxlAcpiDir)
    def cxl_roots(self) -> Collection[int]:
        """The platform's description of CXL."""
        return cxl.roots(self.machine)


class AcpiBusDir(AcpiDeviceDir):
    """The root of ACPI's devices."""

    WHAT = paths.ACPI_ROOT
    SHARED = True
    HID = "LNXSYBUS"

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where something hangs below it."""
        return bool(acpi_nfit(machine))

    @directories("ACPI0012:0<id>", AcpiNfitDir)
    def nfit(self) -> Collection[int]:
        """The firmware's NVDIMM table, up to 7.2."""
        return acpi_nfit(self.machine)


class PlatformDeviceLinks(Directory[Any]):
    """Devices of the platform bus."""

    WHAT = "/sys/bus/platform/devices"

    @links("hmem.<id>", hmem.region_path)
    def hmem_ranges(self) -> Collection[int]:
        """Soft-reserved ranges."""
        return hmem.regions(self.machine)

    @links("hmem_platform.<id>", hmem.platform_path)
    def hmem_platform(self) -> Collection[int]:
        """Soft-reserved memory, since 7.3."""
        return hmem.platform_devices(self.machine)

    @links("ACPI0012:0<id>", _platform_device("ACPI0012"))
    def nfit(self) -> Collection[int]:
        """The firmware's NVDIMM table, since 7.3."""
        return platform_nfit(self.machine)

    @links("ACPI0017:0<id>", _platform_device("ACPI0017"))
    def cxl_roots(self) -> Collection[int]:
        """The platform's description of CXL."""
        return cxl.roots(self.machine)


class NfitDriver(DriverDir):
    """The driver of the firmware's NVDIMM table."""

    WHAT = "/sys/bus/platform/drivers/acpi-nfit"

    nfit = PlatformDeviceLinks.nfit


class CxlAcpiDriver(DriverDir):
    """The driver of the platform's description of CXL."""

    WHAT = "/sys/bus/platform/drivers/cxl_acpi"

    cxl_roots = PlatformDeviceLinks.cxl_roots


class PlatformDrivers(Directory[Any]):
    """Drivers of platform devices."""

    WHAT = "/sys/bus/platform/drivers"

    hmem_platform = always(hmem.HmemPlatformDriver)
    hmem_driver = always(hmem.HmemDriver, name="hmem")
    acpi_nfit = always(NfitDriver, name="acpi-nfit")
    cxl_acpi = always(CxlAcpiDriver)


class PlatformBus(Bus):
    """The platform bus."""

    WHAT = paths.bus("platform")

    devices = always(PlatformDeviceLinks)
    drivers = always(PlatformDrivers)


def _acpi_device(machine: Machine, number: int) -> str:
    return f"{paths.ACPI_ROOT}/ACPI0012:{number:02}"


class AcpiDeviceLinks(Directory[Any]):
    """Devices of the ACPI bus."""

    WHAT = "/sys/bus/acpi/devices"

    @links("ACPI0012:0<id>", _acpi_device)
    def nfit(self) -> Collection[int]:
        """The firmware's NVDIMM table, up to 7.2."""
        return acpi_nfit(self.machine)


class AcpiNfitDriver(DriverDir):
    """The driver of the firmware's NVDIMM table."""

    WHAT = "/sys/bus/acpi/drivers/nfit"

    nfit = AcpiDeviceLinks.nfit


class AcpiDrivers(Directory[Any]):
    """Drivers of ACPI devices."""

    WHAT = "/sys/bus/acpi/drivers"

    nfit = always(AcpiNfitDriver)


class AcpiBus(Bus):
    """The ACPI bus."""

    WHAT = paths.bus("acpi")

    devices = always(AcpiDeviceLinks)
    drivers = always(AcpiDrivers)


DIRECTORIES = (PlatformDir, AcpiBusDir, PlatformBus, AcpiBus, *nd_bus.DIRECTORIES, *cxl.DIRECTORIES)
