"""APIC (MADT): the processors, in the order in which Linux numbers them; compare arch/x86/kernel/acpi/boot.c."""

from __future__ import annotations

from attrs import evolve

from tdxfs.formats.acpi.tables import HEADER, Table, take
from tdxfs.formats.firmware.facts import Firmware, Processor

ENTRIES = HEADER + 8
LOCAL_APIC, LOCAL_X2APIC = 0, 9
ENABLED, ONLINE_CAPABLE = 1, 2
ONLINE_CAPABLE_SINCE = 5
"""The revision of the table from which a disabled processor must say that it can go online."""


def read_madt(table: Table, firmware: Firmware) -> Firmware:
    """`firmware` with its processors."""
    found: dict[int, Processor] = {}
    for kind, data in table.structures(ENTRIES, "<BB"):

        def number(offset: int, size: int, data: bytes = data) -> int:
            return take(data, offset, size, f"{table.where}: APIC")

        if kind == LOCAL_APIC:
            apic_id, flags = number(3, 1), number(4, 4)
            invalid = 0xFF
        elif kind == LOCAL_X2APIC:
            apic_id, flags = number(4, 4), number(8, 4)
            invalid = 0xFFFFFFFF
        else:
            continue
        capable = table.revision < ONLINE_CAPABLE_SINCE or flags & ONLINE_CAPABLE
        if apic_id != invalid and (flags & ENABLED or capable):
            found.setdefault(apic_id, Processor(apic_id, bool(flags & ENABLED)))
    return evolve(firmware, processors=tuple(found.values()))
