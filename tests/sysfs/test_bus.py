"""Tests for the buses: `tdxfs.sysfs.bus`, `nd_bus`, `cxl`, `dax_parents`, `pci`, `devnum`, `module`."""

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import InputOutput, NoEntry
from tdxfs.model import GIB, KERNELS, Bar, DaxDevice, DaxRegion, Driver, MemoryKind, PciDevice, Provider
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Link
from tdxfs.tree import stat_of


def _region(number, provider, kind=MemoryKind.DRAM, driver=Driver.DEVICE_DAX):
    memory = Range((12 + number) * GIB, (13 + number) * GIB)
    return DaxRegion(number, provider, memory, 3, 0, devices=(DaxDevice(0, (memory,), driver),), kind=kind)


GPU = PciDevice(
    "0000:3a:00.0",
    0x10DE,
    0x2901,
    0x030200,
    1,
    (Bar(0, Range(30 * GIB, 31 * GIB)), Bar(3, Range(32 * GIB, 34 * GIB), False)),
)
EVERYTHING = evolve(
    MIXED,
    dax_regions=(
        _region(0, Provider.HMEM),
        _region(1, Provider.NVDIMM, MemoryKind.NVDIMM),
        _region(2, Provider.CXL, MemoryKind.CXL, Driver.KMEM),
        _region(3, Provider.NVDIMM, MemoryKind.CXL),
    ),
    pci_devices=(GPU,),
)
"""A device of every provider, and a PCI function."""


@pytest.mark.parametrize("kernel", KERNELS)
class TestEveryLink:
    def test_none_dangles(self, kernel):
        """Every link of the tree leads to an entry, on every kernel."""
        machine = tree(evolve(EVERYTHING, kernel=kernel))

        for path, entry in machine.walk():
            if isinstance(entry, Link):
                machine.follow(path)

    def test_devices_lead_back_to_their_bus(self, kernel):
        """A device on a bus has a subsystem link to that bus."""
        machine = tree(evolve(EVERYTHING, kernel=kernel))

        for bus in machine.list("/sys/bus").names:
            for name in machine.list(f"/sys/bus/{bus}/devices").names:
                assert f"/sys/bus/{bus}" == machine.follow(f"/sys/bus/{bus}/devices/{name}/subsystem")[0]

    def test_drivers_list_what_is_bound_to_them(self, kernel):
        """A device's driver link and the driver's link to the device say the same."""
        machine = tree(evolve(EVERYTHING, kernel=kernel))

        for bus in ("dax", "nd", "cxl", "platform", "acpi", "cpu"):
            for name in machine.list(f"/sys/bus/{bus}/devices").names:
                real = machine.follow(f"/sys/bus/{bus}/devices/{name}")[0]
                try:
                    driver = machine.follow(f"{real}/driver")[0]
                except NoEntry:
                    continue
                assert real == machine.follow(f"{driver}/{name}")[0]


class TestBus:
    def test_what_a_bus_has(self):
        """A bus has devices, drivers and three control files."""
        expected = {"devices", "drivers", "drivers_autoprobe", "drivers_probe", "uevent"}

        assert expected == set(tree().list("/sys/bus/memory").names)
        assert tree().read("/sys/bus/memory/drivers_autoprobe") == b"1\n"
        assert stat_of(tree().lookup("/sys/bus/memory/drivers_probe")).mode & 0o777 == 0o200

    def test_only_devices_are_listed(self):
        """The node bus has the nodes that are online; a block that is not there has no link."""
        assert {"node0", "node1", "node2"} == set(tree().list("/sys/bus/node/devices").names)
        for path in ("/sys/bus/node/devices/node3", "/sys/bus/memory/devices/memory999"):
            with pytest.raises(NoEntry):
                tree().lookup(path)

    def test_dax_drivers(self):
        """A dax device is linked from its own driver only."""
        machine = tree(EVERYTHING)

        assert "dax2.0" in machine.list("/sys/bus/dax/drivers/kmem").names
        assert "dax2.0" not in machine.list("/sys/bus/dax/drivers/device_dax").names
        assert machine.follow("/sys/bus/dax/drivers/kmem/module")[0] == "/sys/module/kmem"

    def test_kmem_may_not_be_loaded(self):
        """Without the kmem driver neither it nor its module is there."""
        machine = tree(evolve(MIXED, kmem_driver=False))

        assert machine.list("/sys/bus/dax/drivers").names == ("device_dax",)
        with pytest.raises(NoEntry):
            machine.lookup("/sys/module/kmem")


class TestPci:
    PATH = "/sys/devices/pci0000:3a/0000:3a:00.0"

    def test_identity(self):
        """Ids have a fixed width; the bus links to the function below its host bridge."""
        machine = tree(EVERYTHING)

        assert machine.follow("/sys/bus/pci/devices/0000:3a:00.0")[0] == self.PATH
        assert machine.read(f"{self.PATH}/vendor") == b"0x10de\n"
        assert machine.read(f"{self.PATH}/class") == b"0x030200\n"
        assert machine.read(f"{self.PATH}/numa_node") == b"1\n"
        assert machine.read(f"{self.PATH}/local_cpulist") == b"2-3\n"
        assert b"PCI_CLASS=30200\nPCI_ID=10DE:2901\n" in machine.read(f"{self.PATH}/uevent")

    def test_bars(self):
        """resource has one line per BAR; resourceN is as large as the BAR and is not for reading."""
        machine = tree(EVERYTHING)
        lines = machine.read(f"{self.PATH}/resource").decode().splitlines()
        bar = machine.lookup(f"{self.PATH}/resource3")

        assert f"{30 * GIB:#018x} {31 * GIB - 1:#018x} 0x000000000014220c" == lines[0]
        assert f"{32 * GIB:#018x} {34 * GIB - 1:#018x} 0x0000000000140204" == lines[3]
        assert lines[1] == "0x0000000000000000 0x0000000000000000 0x0000000000000000"
        assert (stat_of(bar).mode & 0o777, stat_of(bar).size) == (0o600, 2 * GIB)
        with pytest.raises(InputOutput):
            bar.show()
        with pytest.raises(NoEntry):
            machine.lookup(f"{self.PATH}/resource1")
