"""SRAT and SLIT: who is near whom; compare drivers/acpi/numa/srat.c, arch/x86/mm/srat.c."""

from __future__ import annotations

from attrs import evolve

from tdxfs.errors import UserError
from tdxfs.formats.acpi.tables import HEADER, Table, take
from tdxfs.formats.firmware.facts import Firmware, MemoryAffinity
from tdxfs.ranges import Range

ENTRIES = HEADER + 12
PROCESSOR, MEMORY, X2APIC, INITIATOR = 0, 1, 2, 5
ENABLED, HOTPLUG, NONVOLATILE = 1, 2, 4


def read_srat(table: Table, firmware: Firmware) -> Firmware:
    """`firmware` with the enabled affinities; memory ranges of no size are passed over."""
    processors: dict[int, int] = {}
    memory: list[MemoryAffinity] = []
    initiators: list[int] = []
    for kind, data in table.structures(ENTRIES, "<BB"):

        def number(offset: int, size: int, data: bytes = data) -> int:
            return take(data, offset, size, f"{table.where}: SRAT")

        if kind == PROCESSOR and number(4, 4) & ENABLED:
            domain = number(2, 1)
            if table.revision >= 2:
                domain |= number(9, 3) << 8
            processors[number(3, 1)] = domain
        elif kind == X2APIC and number(12, 4) & ENABLED:
            processors[number(8, 4)] = number(4, 4)
        elif kind == MEMORY and number(28, 4) & ENABLED and number(16, 8):
            start, flags = number(8, 8), number(28, 4)
            # the upper bytes of a domain count from revision 2 on
            domain = number(2, 4) if table.revision >= 2 else number(2, 1)
            where = Range(start, start + number(16, 8))
            memory.append(MemoryAffinity(domain, where, bool(flags & HOTPLUG), bool(flags & NONVOLATILE)))
        elif kind == INITIATOR and number(24, 4) & ENABLED:
            initiators.append(number(4, 4))
    return evolve(firmware, processor_domains=processors, memory=tuple(memory), initiators=tuple(initiators))


def read_slit(table: Table, firmware: Firmware) -> Firmware:
    """`firmware` with the distances between domains; UserError if the matrix is not whole."""
    count = table.number(HEADER, 8)
    if HEADER + 8 + count * count > len(table.data):
        raise UserError(f"{table.where}: SLIT: is too short for {count} localities")
    rows = (table.data[HEADER + 8 + row * count :][:count] for row in range(count))
    return evolve(firmware, distances=tuple(tuple(row) for row in rows))
