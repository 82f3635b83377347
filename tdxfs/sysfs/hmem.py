"""Soft-reserved memory; compare drivers/dax/hmem/hmem.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import delta
from tdxfs.model import Machine, Provider, kernel_at_least
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import always, directories, links, ro
from tdxfs.sysfs.bus import DriverDir
from tdxfs.sysfs.codec import DECIMAL
from tdxfs.sysfs.dax import DaxDeviceDir, DaxRegionDir
from tdxfs.sysfs.platform import PlatformDeviceDir


def regions(machine: Machine) -> Collection[int]:
    """Ids of the soft-reserved ranges."""
    return machine.provider_regions[Provider.HMEM]


def platform_devices(machine: Machine) -> Collection[int]:
    """Numbers of the devices above the ranges: one since 7.3, if there are ranges."""
    return (0,) if regions(machine) and kernel_at_least(machine.topology.kernel, "7.3") else ()


def region_path(machine: Machine, region: int) -> str:
    return paths.dax_parent(machine, (region, 0))


def platform_path(machine: Machine, number: int) -> str:
    return f"{paths.PLATFORM_ROOT}/hmem_platform.{number}"


class HmemDir(PlatformDeviceDir):
    """A range of soft-reserved memory; key: region id."""

    WHAT = "/sys/bus/platform/devices/hmem.<id>"
    FOLLOWS = staticmethod(delta.regions)
    DRIVER = "hmem"
    MODALIAS = "platform:hmem"

    dax_region = always(DaxRegionDir)

    @ro(DECIMAL)
    def numa_node(self) -> int:
        """The nearest node that is online; -1 if unknown."""
        node = self.machine.regions[self.key].numa_node
        return -1 if node is None else node

    @directories("dax<region>.<id>", DaxDeviceDir)
    def dax_devices(self) -> Collection[tuple[int, int]]:
        """The dax devices of the region."""
        return self.machine.region_devices.get(self.key, ())


class HmemPlatformDir(PlatformDeviceDir):
    """All soft-reserved memory, since 7.3."""

    WHAT = "/sys/bus/platform/devices/hmem_platform.<id>"
    DRIVER = "hmem_platform"
    MODALIAS = "platform:hmem_platform"

    @directories("hmem.<id>", HmemDir)
    def ranges(self) -> Collection[int]:
        """One per soft-reserved range."""
        return regions(self.machine)


class HmemDriver(DriverDir):
    """The driver that makes a dax region of a soft-reserved range."""

    WHAT = "/sys/bus/platform/drivers/hmem"

    @links("hmem.<id>", region_path)
    def devices(self) -> Collection[int]:
        """The soft-reserved ranges."""
        return regions(self.machine)


class HmemPlatformDriver(DriverDir):
    """The driver that finds soft-reserved ranges."""

    WHAT = "/sys/bus/platform/drivers/hmem_platform"

    @links("hmem_platform.<id>", platform_path)
    def devices(self) -> Collection[Any]:
        """Its device."""
        return platform_devices(self.machine)
