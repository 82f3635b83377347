"""``/sys/bus/nd``; compare drivers/nvdimm/bus.c."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from tdxfs.model import Machine, Provider
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, links
from tdxfs.sysfs.bus import Bus, DriverDir, FixedDriverDir
from tdxfs.sysfs.nd import Key, active, seed_of


def regions(machine: Machine) -> Collection[int]:
    """Ids of all NVDIMM regions."""
    return machine.provider_regions[Provider.NVDIMM]


class _NdDevices(Collection[Key]):
    """All nd devices: the devices of NVDIMM regions, and one idle one per region."""

    def __init__(self, machine: Machine, *, idle: bool) -> None:
        self.machine = machine
        self.idle = idle

    def _of(self, region: int) -> tuple[Key, ...]:
        mine = tuple(active(self.machine, region))
        return (*mine, seed_of(self.machine, region)) if self.idle else mine

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and key[0] in regions(self.machine) and key in self._of(key[0])

    def __iter__(self) -> Iterator[Key]:
        return (key for region in regions(self.machine) for key in self._of(region))

    def __len__(self) -> int:
        return sum(len(self._of(region)) for region in regions(self.machine))


class NdDeviceLinks(Directory[Any]):
    """Devices of the NVDIMM bus."""

    WHAT = "/sys/bus/nd/devices"

    @links("ndbus<id>", paths.nd_bus)
    def buses(self) -> Collection[int]:
        """The buses."""
        return range(len(self.machine.nd_buses))

    @links("region<id>", paths.nd_region)
    def regions(self) -> Collection[int]:
        """The regions."""
        return regions(self.machine)

    @links("dax<region>.<id>", paths.nd_dax)
    def devices(self) -> Collection[Key]:
        """The namespaces in devdax mode and the idle devices."""
        return _NdDevices(self.machine, idle=True)


class DaxPmemDriver(DriverDir):
    """The driver that makes dax devices of namespaces."""

    WHAT = "/sys/bus/nd/drivers/dax_pmem"

    @links("dax<region>.<id>", paths.nd_dax)
    def devices(self) -> Collection[Key]:
        """The nd devices bound to it."""
        return _NdDevices(self.machine, idle=False)


class NdRegionDriver(DriverDir):
    """The driver of NVDIMM regions."""

    WHAT = "/sys/bus/nd/drivers/nd_region"

    regions = NdDeviceLinks.regions


class NdBusDriver(FixedDriverDir):
    """The driver of NVDIMM buses."""

    WHAT = "/sys/bus/nd/drivers/nd_bus"

    buses = NdDeviceLinks.buses


class NdDrivers(Directory[Any]):
    """Drivers of NVDIMM devices."""

    WHAT = "/sys/bus/nd/drivers"

    dax_pmem = always(DaxPmemDriver)
    nd_region = always(NdRegionDriver)
    nd_bus = always(NdBusDriver)


class NdBusType(Bus):
    """The NVDIMM bus type."""

    WHAT = paths.bus("nd")

    devices = always(NdDeviceLinks)
    drivers = always(NdDrivers)


DIRECTORIES = (NdBusType,)
