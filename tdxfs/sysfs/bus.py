"""``/sys/bus``: the buses whose devices tdxfs has; compare drivers/base/bus.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import nodes
from tdxfs.model import Driver, Machine, Provider
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, DirectoryClass, always, link, links, rw, wo
from tdxfs.sysfs.codec import BOOL, NOTHING


class Empty(Directory[Any]):
    """Empty on this bus."""

    WHAT = "/sys/bus/<bus>/drivers"


class Bus(Directory[Any]):
    """A bus, its devices and drivers."""

    WHAT = "/sys/bus/<bus>"

    drivers = always(Empty)
    drivers_probe = wo(NOTHING, "The name of a device that is to look for a driver.")
    uevent = wo(NOTHING, "Asks for a uevent of the bus.")

    @rw(BOOL)
    def drivers_autoprobe(self) -> bool:
        """1: new devices look for a driver by themselves."""
        return True


class DriverDir(Directory[Any]):
    """A driver and the devices it is bound to."""

    WHAT = "/sys/bus/<bus>/drivers/<driver>"

    bind = wo(NOTHING, "The name of a device to bind.")
    unbind = wo(NOTHING, "The name of a device to unbind.")
    uevent = wo(NOTHING, "Asks for a uevent of the driver.")


def simple_bus(
    name: str, template: str, keys: Any, to: Any, drivers: DirectoryClass = Empty, *, text: bool = False
) -> DirectoryClass:
    """A bus whose devices are one family of links."""

    class Devices(Directory[Any]):
        WHAT = f"/sys/bus/{name}/devices"

        @links(template, to, text=text)
        def devices(self) -> Collection[Any]:
            """The devices of the bus."""
            found: Collection[Any] = keys(self.machine)
            return found

    members = {
        "__doc__": f"The {name} bus.",
        "WHAT": paths.bus(name),
        "devices": always(Devices),
        "drivers": always(drivers),
    }
    return type(f"{name.capitalize()}Bus", (Bus,), members)


class ProcessorDriver(DriverDir):
    """The ACPI processor driver."""

    WHAT = "/sys/bus/cpu/drivers/processor"

    @links("cpu<id>", paths.cpu)
    def cpus(self) -> Collection[int]:
        """The CPUs."""
        return self.machine.cpus


class CpuDrivers(Directory[Any]):
    """Drivers of CPUs."""

    WHAT = "/sys/bus/cpu/drivers"

    processor = always(ProcessorDriver)


class DaxDriver(DriverDir):
    """A dax driver and the devices it is bound to."""

    WHAT = "/sys/bus/dax/drivers/<driver>"

    new_id = wo(NOTHING, "dax<region>.<id>: a device the driver is to take from now on.")
    remove_id = wo(NOTHING, "dax<region>.<id>: takes new_id back.")

    @property
    def driver(self) -> Driver:
        return Driver(self.path.rpartition("/")[2])

    @link
    def module(self) -> str:
        """The module of the driver."""
        return f"/sys/module/{self.driver.value}"

    @links("dax<region>.<id>", paths.dax)
    def devices(self) -> Collection[tuple[int, int]]:
        """The devices bound to it."""
        return self.machine.bound_dax.get(self.driver, frozenset())


class DaxDrivers(Directory[Any]):
    """Drivers of dax devices."""

    WHAT = "/sys/bus/dax/drivers"

    device_dax = always(DaxDriver)
    kmem = always(DaxDriver)


class DaxPmemDriver(DriverDir):
    """The driver that makes dax devices of NVDIMM namespaces."""

    WHAT = "/sys/bus/nd/drivers/dax_pmem"

    def _regions(self) -> list[int]:
        return [region.id for region in self.machine.topology.dax_regions if region.provider is Provider.NVDIMM]

    @links("dax<region>.<id>", paths.dax_parent)
    def devices(self) -> Collection[tuple[int, int]]:
        """The nd devices bound to it."""
        return [key for region in self._regions() for key in self.machine.region_devices.get(region, ())]


class NdDrivers(Directory[Any]):
    """Drivers of NVDIMM devices."""

    WHAT = "/sys/bus/nd/drivers"

    dax_pmem = always(DaxPmemDriver)


class HmemDriver(DriverDir):
    """The driver of soft-reserved memory."""

    WHAT = "/sys/bus/platform/drivers/hmem"


class CxlDaxRegionDriver(DriverDir):
    """The driver that makes dax regions of CXL RAM regions."""

    WHAT = "/sys/bus/cxl/drivers/cxl_dax_region"


class PlatformDrivers(Directory[Any]):
    """Drivers of platform devices."""

    WHAT = "/sys/bus/platform/drivers"

    hmem = always(HmemDriver)


class CxlDrivers(Directory[Any]):
    """Drivers of CXL devices."""

    WHAT = "/sys/bus/cxl/drivers"

    cxl_dax_region = always(CxlDaxRegionDriver)


def _provider_devices(provider: Provider) -> Any:
    def keys(machine: Machine) -> Collection[Any]:
        return [region.id for region in machine.topology.dax_regions if region.provider is provider]

    return keys


def _region_path(machine: Machine, region: int) -> str:
    return paths.dax_parent(machine, (region, 0))


def _nothing(machine: Machine) -> Collection[Any]:
    return ()


DIRECTORIES: tuple[DirectoryClass, ...] = (
    simple_bus("node", "node<id>", nodes.online_nodes, paths.node),
    simple_bus("memory", "memory<id>", lambda machine: machine.blocks, paths.memory_block),
    simple_bus("cpu", "cpu<id>", lambda machine: machine.cpus, paths.cpu, CpuDrivers),
    simple_bus("dax", "dax<region>.<id>", lambda machine: machine.dax, paths.dax, DaxDrivers),
    simple_bus("platform", "hmem.<id>", _provider_devices(Provider.HMEM), _region_path, PlatformDrivers),
    simple_bus("cxl", "dax_region<id>", _provider_devices(Provider.CXL), _region_path, CxlDrivers),
    simple_bus(
        "nd",
        "dax<region>.<id>",
        lambda machine: [key for key in machine.dax if machine.regions[key[0]].provider is Provider.NVDIMM],
        paths.dax_parent,
        NdDrivers,
    ),
    simple_bus("faux", "faux<id>", _nothing, paths.node),
)
