"""PCI devices with memory BARs; compare drivers/pci/pci-sysfs.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs.model import PciDevice
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, directories, link, ro, rw
from tdxfs.sysfs.bus import simple_bus
from tdxfs.sysfs.codec import DECIMAL, TEXT, Codec
from tdxfs.sysfs.power import DeviceDir, PowerDir

ID: Codec[int] = Codec("0x and four digits", "{:#06x}".format, lambda text: int(text, 16))
CLASS: Codec[int] = Codec("0x and six digits", "{:#08x}".format, lambda text: int(text, 16))
IORESOURCE_MEM, IORESOURCE_PREFETCH, IORESOURCE_MEM_64 = 0x200, 0x2000, 0x100000
STANDARD_RESOURCES = 13


class PciFunctionDir(DeviceDir[str]):
    """A PCI function; key: its address."""

    WHAT = "/sys/bus/pci/devices/<address>"

    power = always(PowerDir)

    @property
    def function(self) -> PciDevice:
        return next(device for device in self.machine.topology.pci_devices if device.address == self.key)

    @ro(ID)
    def vendor(self) -> int:
        """PCI vendor id."""
        return self.function.vendor

    @ro(ID)
    def device(self) -> int:
        """PCI device id."""
        return self.function.device

    @ro(CLASS, name="class")
    def class_(self) -> int:
        """PCI class, 24 bits."""
        return self.function.pci_class

    @rw(DECIMAL)
    def numa_node(self) -> int:
        """The node the device is near."""
        return self.function.numa_node

    @rw(TEXT)
    def uevent(self) -> str:
        """Class, ids and address."""
        f = self.function
        return f"PCI_CLASS={f.pci_class:X}\nPCI_ID={f.vendor:04X}:{f.device:04X}\nPCI_SLOT_NAME={f.address}\n"

    @ro(TEXT)
    def resource(self) -> str:
        """One line per resource: start, end (inclusive), flags."""
        rows = [(0, 0, 0)] * STANDARD_RESOURCES
        for bar in self.function.bars:
            flags = IORESOURCE_MEM | IORESOURCE_MEM_64 | (IORESOURCE_PREFETCH if bar.prefetchable else 0)
            rows[bar.index] = (bar.range.start, bar.range.end - 1, flags)
        return "".join(f"0x{start:016x} 0x{end:016x} 0x{flags:016x}\n" for start, end, flags in rows)

    @link
    def subsystem(self) -> str:
        """The PCI bus."""
        return paths.bus("pci")


class PciHostDir(Directory[str]):
    """A PCI host bridge; key: domain and bus."""

    WHAT = "/sys/devices/pci<domain>:<bus>"

    @directories("<address>", PciFunctionDir, text=True)
    def functions(self) -> Collection[str]:
        """The functions on its root bus."""
        return [device.address for device in self.machine.topology.pci_devices if device.address[:7] == self.key]


class DevicesDir(Directory[Any]):
    """Devices whose place has a name of its own."""

    WHAT = "/sys/devices"

    @directories("pci<bus>", PciHostDir, text=True)
    def hosts(self) -> Collection[str]:
        """The PCI host bridges."""
        return {device.address[:7] for device in self.machine.topology.pci_devices}


DIRECTORIES = (
    DevicesDir,
    simple_bus(
        "pci", "<address>", lambda m: [device.address for device in m.topology.pci_devices], paths.pci, text=True
    ),
)
