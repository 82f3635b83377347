"""Where the data of a namespace with page structs begins; compare nd_pfn_init() in drivers/nvdimm/pfn_devs.c."""

from __future__ import annotations

from enum import Enum

from tdxfs.model import KIB, MIB, PAGE_SIZE
from tdxfs.ranges import Range, align_down, align_up

INFO_BLOCK = 8 * KIB
PAGE_STRUCT = 64
"""Bytes of one struct page."""
SECTION_ALIGN = 2 * MIB
"""memremap_compat_align()."""


class MapMode(Enum):
    """Where the page structs are, as ``ndctl create-namespace --map`` says it."""

    MEM = "mem"
    DEV = "dev"


def devdax_range(region: Range, align: int, mode: MapMode) -> Range:
    """What a namespace in devdax mode over all of `region` leaves to its dax device."""
    align = max(align, SECTION_ALIGN)
    structs = (region.size - INFO_BLOCK) // PAGE_SIZE * PAGE_STRUCT if mode is MapMode.DEV else 0
    return Range(align_up(region.start + INFO_BLOCK + structs, align), align_down(region.end, align))
