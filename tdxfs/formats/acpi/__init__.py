"""A machine's raw ACPI tables as a topology, as Linux reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tdxfs.formats.acpi.cedt import read_cedt
from tdxfs.formats.acpi.hmat import read_hmat
from tdxfs.formats.acpi.madt import read_madt
from tdxfs.formats.acpi.nfit import read_nfit
from tdxfs.formats.acpi.srat import read_slit, read_srat
from tdxfs.formats.acpi.tables import Table, read_tables
from tdxfs.formats.firmware.facts import Firmware, MapEntry
from tdxfs.formats.firmware.numa import read_firmware
from tdxfs.formats.firmware.unsaid import NOTHING_SAID, Unsaid
from tdxfs.model import Topology

READERS = {
    "APIC": read_madt,
    "SRAT": read_srat,
    "SLIT": read_slit,
    "HMAT": read_hmat,
    "NFIT": read_nfit,
    "CEDT": read_cedt,
}
VIRTUAL_OEMS = {"BOCHS", "VBOX", "VMWARE", "VRTUAL", "Xen"}
"""OEM ids by which virtual machines are known; on a real machine CPUID says it."""


def import_acpi(
    paths: Iterable[Path],
    base: Topology,
    memory_map: tuple[MapEntry, ...] = (),
    unsaid: Unsaid = NOTHING_SAID,
) -> Topology:
    """
    The topology that `base`'s kernel finds with these tables: files, or directories of them. Everything that tables
    do not say is `base`'s or `unsaid`'s. Without a memory map, RAM is what SRAT calls neither hotpluggable nor
    non-volatile. UserError in one line.
    """
    return read_firmware(parse(read_tables(paths, READERS), memory_map), base, unsaid)


def parse(tables: dict[str, Table], memory_map: tuple[MapEntry, ...] = ()) -> Firmware:
    """What the tables say, in the kernel's order of reading."""
    oems = {table.oem for table in tables.values()}
    firmware = Firmware(memory_map=memory_map, hypervisor=bool(oems & VIRTUAL_OEMS))
    for signature, reader in READERS.items():
        if signature in tables:
            firmware = reader(tables[signature], firmware)
    return firmware
