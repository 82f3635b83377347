"""Which memory is in which zone, and which zone memory joins; compare mm/memory_hotplug.c."""

from __future__ import annotations

from functools import lru_cache

from tdxfs.model import GIB, MIB, Block, Machine, Zone
from tdxfs.nodes import block_runs
from tdxfs.ranges import Range, Ranges

DMA_END, DMA32_END = 16 * MIB, 4 * GIB
BOUNDS = {
    Zone.DMA: Range(0, DMA_END),
    Zone.DMA32: Range(DMA_END, DMA32_END),
    Zone.NORMAL: Range(DMA32_END, 1 << 64),
}
"""Where x86-64 puts memory at boot."""


def zone_of(address: int) -> Zone:
    """The zone that x86-64 puts an address into at boot."""
    if address < DMA_END:
        return Zone.DMA
    return Zone.DMA32 if address < DMA32_END else Zone.NORMAL


@lru_cache(maxsize=64)
def zone_ranges(machine: Machine, nid: int) -> dict[Zone, Ranges]:
    """The online memory of a node by zone; a zone that is empty is there too."""
    size = machine.topology.memory.block_size
    ram = machine.node_ram.get(nid, Ranges())
    found: dict[Zone, list[Range]] = {zone: [] for zone in Zone}
    for start, end, block in block_runs(machine, nid):
        if not block.online:
            continue
        mine = Ranges(tuple(ram.within(Range(start * size, end * size))))
        if block.zone is not None:
            found[block.zone].extend(mine)
        else:
            for zone, bound in BOUNDS.items():
                found[zone].extend(mine.within(bound))
    return {zone: Ranges.of(parts) for zone, parts in found.items()}


def spans(machine: Machine, nid: int) -> dict[Zone, Range]:
    """From the first to the last online byte of each zone of a node that is not empty."""
    return {
        zone: Range(memory.parts[0].start, memory.parts[-1].end)
        for zone, memory in zone_ranges(machine, nid).items()
        if memory
    }


def kernel_zone(zones: dict[Zone, Range], memory: Range) -> Zone:
    """
    The kernel zone that `memory` joins: the low one whose span it meets, else ZONE_NORMAL
    (``default_kernel_zone_for_pfn``).
    """
    for zone in (Zone.DMA, Zone.DMA32):
        if zone in zones and memory.overlaps(zones[zone]):
            return zone
    return Zone.NORMAL


def default_zone(zones: dict[Zone, Range], memory: Range) -> Zone:
    """
    The zone that `memory` joins unless told otherwise: ZONE_MOVABLE inside its span and outside that of the
    kernel zone, else the kernel zone (``default_zone_for_pfn`` without ``movable_node``).
    """
    kernel = kernel_zone(zones, memory)
    in_kernel = kernel in zones and memory.overlaps(zones[kernel])
    in_movable = Zone.MOVABLE in zones and memory.overlaps(zones[Zone.MOVABLE])
    return Zone.MOVABLE if in_movable and not in_kernel else kernel


def zone_for(word: str, zones: dict[Zone, Range], memory: Range) -> Zone:
    """The zone that `memory` joins when it goes online as `word` says (``zone_for_pfn_range``)."""
    if word == "online_movable":
        return Zone.MOVABLE
    return kernel_zone(zones, memory) if word == "online_kernel" else default_zone(zones, memory)


def valid_zones(machine: Machine, block_id: int, block: Block) -> tuple[Zone, ...]:
    """
    Of an online block its zone, nothing if it has several; of an offline one those that it can join, the
    default first (``valid_zones_show``).
    """
    if block.online:
        return () if block.zone is None else (block.zone,)
    size = machine.topology.memory.block_size
    memory = Range(block_id * size, (block_id + 1) * size)
    zones = spans(machine, block.nodes[0])
    possible = (default_zone(zones, memory), kernel_zone(zones, memory), Zone.MOVABLE)
    return tuple(dict.fromkeys(possible))
