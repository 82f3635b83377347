"""CEDT: the CXL fixed memory windows (CFMWS); compare drivers/acpi/numa/srat.c."""

from __future__ import annotations

from attrs import evolve

from tdxfs.formats.acpi.tables import HEADER, Table, take
from tdxfs.formats.firmware.facts import Firmware
from tdxfs.ranges import Range

WINDOW = 1


def read_cedt(table: Table, firmware: Firmware) -> Firmware:
    """`firmware` with its windows, in the order of the table."""
    found = []
    for kind, data in table.structures(HEADER, "<BxH"):
        if kind == WINDOW:
            start = take(data, 8, 8, f"{table.where}: CEDT")
            size = take(data, 16, 8, f"{table.where}: CEDT")
            if size:
                found.append(Range(start, start + size))
    return evolve(firmware, windows=tuple(found))
