"""``/sys/bus``: the buses whose devices tdxfs has; compare drivers/base/bus.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import nodes
from tdxfs.model import Driver
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, DirectoryClass, always, link, links, rw, subdirectory, wo
from tdxfs.sysfs.codec import BOOL, NOTHING
from tdxfs.sysfs.tdx_host import TdxHostDir


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


class FixedDriverDir(Directory[Any]):
    """A driver whose devices nobody can bind or unbind by hand."""

    WHAT = "/sys/bus/<bus>/drivers/<driver>"

    uevent = wo(NOTHING, "Asks for a uevent of the driver.")


class DriverDir(FixedDriverDir):
    """A driver and the devices it is bound to."""

    bind = wo(NOTHING, "The name of a device to bind.")
    unbind = wo(NOTHING, "The name of a device to unbind.")


def simple_bus(
    name: str, template: str, keys: Any, to: Any, drivers: DirectoryClass = Empty, *, text: bool = False
) -> DirectoryClass:
    """A bus whose devices are one family of links."""

    class Devices(Directory[Any]):
        """Links to the devices of the bus."""

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

    @subdirectory(DaxDriver)
    def kmem(self) -> bool:
        """The driver that makes System RAM of dax devices. Absent while it is not loaded."""
        return self.machine.topology.kmem_driver


class FauxDevices(Directory[Any]):
    """Devices of the faux bus."""

    WHAT = "/sys/bus/faux/devices"

    @link
    def tdx_host(self) -> str | None:
        """The TDX module of the host. Absent where TdxHostDir is."""
        return TdxHostDir.WHAT if TdxHostDir.exists(self.machine) else None


class FauxBus(Bus):
    """The bus of devices that are no hardware."""

    WHAT = paths.bus("faux")

    devices = always(FauxDevices)


DIRECTORIES: tuple[DirectoryClass, ...] = (
    simple_bus("node", "node<id>", nodes.online_nodes, paths.node),
    simple_bus("memory", "memory<id>", lambda machine: machine.blocks, paths.memory_block),
    simple_bus("cpu", "cpu<id>", lambda machine: machine.cpus, paths.cpu, CpuDrivers),
    simple_bus("dax", "dax<region>.<id>", lambda machine: machine.dax, paths.dax, DaxDrivers),
    FauxBus,
)
