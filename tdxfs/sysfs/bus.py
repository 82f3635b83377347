"""``/sys/bus``: the buses whose devices tdxfs has; compare drivers/base/bus.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import delta, nodes
from tdxfs.errors import Busy, NoDevice, NotPermitted
from tdxfs.model import Driver, Machine, changed
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, DirectoryClass, always, link, links, rw, subdirectory, wo
from tdxfs.sysfs.codec import BOOL, LINE
from tdxfs.sysfs.power import uevent_request
from tdxfs.sysfs.tdx_host import TdxHostDir
from tdxfs.transitions import dax


class Empty(Directory[Any]):
    """Empty on this bus."""

    WHAT = "/sys/bus/<bus>/drivers"


class Bus(Directory[Any]):
    """A bus, its devices and drivers."""

    WHAT = "/sys/bus/<bus>"

    drivers = always(Empty)
    drivers_probe = wo(LINE, "The name of a device that is to look for a driver.")
    uevent = uevent_request("Asks for a uevent of the bus.")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @drivers_probe.store
    def _store_probe(self, name: str) -> Machine:
        return self.probe(name)

    def probe(self, name: str) -> Machine:
        """The machine after a device of the bus has looked for a driver; NoDevice if there is none of that name."""
        devices = self.lookup("devices")
        if not isinstance(devices, Directory) or not name or devices.lookup(name) is None:
            raise NoDevice(f"no device {name!r} on the {self.name} bus")
        return self.machine

    @rw(BOOL, takes=LINE)
    def drivers_autoprobe(self) -> bool:
        """1: new devices look for a driver by themselves. All that does not begin with 0 is 1."""
        return self.name not in self.machine.no_autoprobe

    @drivers_autoprobe.store
    def _set_autoprobe(self, text: str) -> Machine:
        off = self.machine.no_autoprobe
        return changed(self.machine, no_autoprobe=off | {self.name} if text[:1] == "0" else off - {self.name})


class FixedDriverDir(Directory[Any]):
    """A driver whose devices nobody can bind or unbind by hand."""

    WHAT = "/sys/bus/<bus>/drivers/<driver>"

    uevent = uevent_request("Asks for a uevent of the driver.")


class DriverDir(FixedDriverDir):
    """A driver and the devices it is bound to."""

    bind = wo(LINE, "The name of a device to bind.")
    unbind = wo(LINE, "The name of a device to unbind. EPERM in tdxfs: only dax devices can be unbound.")

    def _has(self, name: str) -> bool:
        return any(family.find(self, name) is not None for family in self.FAMILIES)

    @bind.store
    def _bind(self, name: str) -> Machine:
        raise Busy(f"{name} is bound") if self._has(name) else NoDevice(f"it does not take {name!r}")

    @unbind.store
    def _unbind(self, name: str) -> Machine:
        raise NotPermitted(f"tdxfs does not unbind {name}") if self._has(name) else NoDevice(f"{name!r} is not bound")


def simple_bus(
    name: str,
    template: str,
    keys: Any,
    to: Any,
    drivers: DirectoryClass = Empty,
    *,
    text: bool = False,
    base: DirectoryClass = Bus,
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
    return type(f"{name.capitalize()}Bus", (base,), members)


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
    FOLLOWS = staticmethod(delta.dax)

    bind = wo(LINE, "The name of a device to bind.")
    unbind = wo(LINE, "The name of a device to unbind.")
    new_id = wo(LINE, "dax<region>.<id>: a device the driver is to take from now on.")
    remove_id = wo(LINE, "dax<region>.<id>: takes new_id back.")

    @property
    def driver(self) -> Driver:
        return Driver(self.path.rpartition("/")[2])

    @bind.store
    def _bind(self, name: str) -> Machine:
        return dax.bind(self.machine, self.driver, name)

    @unbind.store
    def _unbind(self, name: str) -> Machine:
        return dax.unbind(self.machine, self.driver, name)

    @new_id.store
    def _new_id(self, name: str) -> Machine:
        return dax.new_id(self.machine, self.driver, name)

    @remove_id.store
    def _remove_id(self, name: str) -> Machine:
        return dax.remove_id(self.machine, self.driver, name)

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


class AnyDaxBus(Bus):
    """The dax bus: devices that find no driver stay without one."""

    def probe(self, name: str) -> Machine:
        return dax.drivers_probe(self.machine, name)


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
    simple_bus("dax", "dax<region>.<id>", lambda machine: machine.dax, paths.dax, DaxDrivers, base=AnyDaxBus),
    FauxBus,
)
