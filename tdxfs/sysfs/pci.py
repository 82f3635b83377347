"""PCI devices with memory BARs; compare drivers/pci/pci-sysfs.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attrs import define, evolve

from tdxfs import delta, nodes
from tdxfs.errors import InputOutput, InvalidValue
from tdxfs.kmsg import ALERT, said
from tdxfs.model import Machine, PciDevice, changed
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, File, Files, Reader, always, directories, link, ro, rw
from tdxfs.sysfs.bus import simple_bus
from tdxfs.sysfs.codec import DECIMAL, INT, LINE, LIST, MASK, TEXT, Codec, Mask
from tdxfs.sysfs.cpu_topology import mask_width
from tdxfs.sysfs.power import DeviceDir, PowerDir, uevent

ID: Codec[int] = Codec("0x and four digits", "{:#06x}".format, lambda text: int(text, 16))
CLASS: Codec[int] = Codec("0x and six digits", "{:#08x}".format, lambda text: int(text, 16))
MEMORY_BAR = 0x140204
"""IORESOURCE_MEM, _MEM_64 and _SIZEALIGN, and the BAR's own bits of a 64-bit memory BAR."""
PREFETCHABLE = 0x2008
"""IORESOURCE_PREFETCH and the BAR's own bit."""
STANDARD_RESOURCES = 13


def _no_write(directory: Any, index: int, text: str) -> Machine:
    raise InputOutput("memory BARs can only be mapped")


@define(eq=False)
class BarFiles(Files[Any]):
    """The ``resource<index>`` files of a function, each as large as its BAR."""

    def make(self, directory: Any, name: str, key: Any) -> File:
        size = next(bar.range.size for bar in directory.function.bars if bar.index == key)
        return evolve(super().make(directory, name, key), reader=Reader.MEMORY, size=size)


def _no_read(directory: Any, index: int) -> str:
    raise InputOutput("memory BARs can only be mapped")


def _modalias(f: PciDevice) -> str:
    base, sub, interface = f.pci_class >> 16, f.pci_class >> 8 & 0xFF, f.pci_class & 0xFF
    board = f"sv{0:08X}sd{0:08X}"
    return f"pci:v{f.vendor:08X}d{f.device:08X}{board}bc{base:02X}sc{sub:02X}i{interface:02X}"


class PciFunctionDir(DeviceDir[str]):
    """A PCI function; key: its address."""

    WHAT = "/sys/bus/pci/devices/<address>"
    FOLLOWS = staticmethod(delta.topology)

    power = always(PowerDir)

    @property
    def function(self) -> PciDevice:
        return self.machine.pci[self.key]

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

    @rw(DECIMAL, takes=INT)
    def numa_node(self) -> int:
        """The node the device is near. Written, it overrides what the firmware says, and the log complains."""
        return self.machine.pci_nodes.get(self.key, self.function.numa_node)

    @numa_node.store
    def _set_numa_node(self, nid: int) -> Machine:
        if nid != -1 and nid not in nodes.online_nodes(self.machine):
            raise InvalidValue(f"node {nid} is not online")
        text = f"pci {self.key}: [Firmware Bug]: Overriding NUMA node to {nid}.  Contact your vendor for updates."
        machine = changed(self.machine, pci_nodes=self.machine.pci_nodes.set(self.key, nid))
        return said(machine, ALERT, text)

    @uevent
    def uevent(self) -> str:
        """Class, ids, address and modalias."""
        f = self.function
        return (
            f"PCI_CLASS={f.pci_class:04X}\nPCI_ID={f.vendor:04X}:{f.device:04X}\nPCI_SUBSYS_ID=0000:0000\n"
            f"PCI_SLOT_NAME={f.address}\nMODALIAS={_modalias(f)}\n"
        )

    @ro(LINE)
    def modalias(self) -> str:
        """Modalias of the device."""
        return _modalias(self.function)

    @ro(ID)
    def subsystem_vendor(self) -> int:
        """Vendor id of the board."""
        return 0

    @ro(ID)
    def subsystem_device(self) -> int:
        """Device id of the board."""
        return 0

    def _cpus(self) -> frozenset[int]:
        near = self.machine.node_cpus.get(self.numa_node)
        return self.machine.cpus_online if near is None else self.machine.cpus_online & frozenset(near)

    @ro(LIST)
    def local_cpulist(self) -> frozenset[int]:
        """Online CPUs of the node the device is near, as a range list; all if that has none."""
        return self._cpus()

    @ro(MASK)
    def local_cpus(self) -> Mask:
        """Online CPUs of the node the device is near, as a mask; all if that has none."""
        return Mask(self._cpus(), mask_width(self.machine))

    @ro(TEXT)
    def resource(self) -> str:
        """One line per resource: start, end (inclusive), flags."""
        rows = [(0, 0, 0)] * STANDARD_RESOURCES
        for bar in self.function.bars:
            flags = MEMORY_BAR | (PREFETCHABLE if bar.prefetchable else 0)
            rows[bar.index] = (bar.range.start, bar.range.end - 1, flags)
        return "".join(f"0x{start:016x} 0x{end:016x} 0x{flags:016x}\n" for start, end, flags in rows)

    def _bars(self) -> Collection[int]:
        return [bar.index for bar in self.function.bars]

    bars = BarFiles(
        template="resource<index>",
        doc="The memory of a BAR, as large as it; to be mapped, EIO when read.",
        keys=_bars,
        codec=TEXT,
        mode=0o600,
        value=_no_read,
        takes=TEXT,
        store_value=_no_write,
    )

    @link
    def subsystem(self) -> str:
        """The PCI bus."""
        return paths.bus("pci")


class PciHostDir(Directory[str]):
    """A PCI host bridge; key: domain and bus."""

    WHAT = "/sys/devices/pci<domain>:<bus>"
    FOLLOWS = staticmethod(delta.topology)

    @directories("<address>", PciFunctionDir, text=True)
    def functions(self) -> Collection[str]:
        """The functions on its root bus."""
        return self.machine.pci_hosts[self.key]


class DevicesDir(Directory[Any]):
    """Devices whose place has a name of its own."""

    WHAT = "/sys/devices"
    SHARED = True

    @directories("pci<bus>", PciHostDir, text=True)
    def hosts(self) -> Collection[str]:
        """The PCI host bridges."""
        return self.machine.pci_hosts


DIRECTORIES = (
    DevicesDir,
    simple_bus("pci", "<address>", lambda machine: machine.pci, paths.pci, text=True),
)
