"""NFIT: where persistent memory lies; compare drivers/acpi/nfit/core.c."""

from __future__ import annotations

from uuid import UUID

from attrs import evolve

from tdxfs.formats.acpi.tables import HEADER, Table, take
from tdxfs.formats.firmware.facts import Firmware, PersistentRange
from tdxfs.ranges import Range

ENTRIES = HEADER + 4
RANGE = 0
DOMAIN_VALID = 2
PERSISTENT_MEMORY = UUID("66f0d379-b4f3-4074-ac43-0d3318b78cdb")


def read_nfit(table: Table, firmware: Firmware) -> Firmware:
    """`firmware` with its ranges of persistent memory, in the order of the table: region0, region1, ..."""
    found = []
    for kind, data in table.structures(ENTRIES, "<HH"):
        where = f"{table.where}: NFIT"
        if kind == RANGE and len(data) >= 56 and UUID(bytes_le=data[16:32]) == PERSISTENT_MEMORY:
            start, size = take(data, 32, 8, where), take(data, 40, 8, where)
            domain = take(data, 12, 4, where) if take(data, 6, 2, where) & DOMAIN_VALID else None
            if size:
                found.append(PersistentRange(Range(start, start + size), domain))
    return evolve(firmware, persistent=tuple(found))
