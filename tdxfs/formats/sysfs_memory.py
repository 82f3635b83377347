"""Nodes, their memory and its blocks out of a recorded sysfs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve

from tdxfs.formats.read import id_set, iomem, numbered, text, value
from tdxfs.formats.snapshot import Snapshot
from tdxfs.formats.sysfs_node import HUGEPAGES, NODES, hugepage_sizes, meminfo, node_ids, with_what_it_says
from tdxfs.idlist import format_list, parse_list
from tdxfs.model import (
    PAGE_SIZE,
    DaxRegion,
    Driver,
    Memory,
    MemoryKind,
    MemoryLayout,
    Node,
    Topology,
)
from tdxfs.ranges import Range, Ranges, align_down
from tdxfs.sysfs.codec import BARE_HEX, LINE, WORD
from tdxfs.sysfs.node import DISTANCES

BLOCKS = "sys/devices/system/memory"
ONLY = 0
"""The node of a machine whose kernel knows of no nodes."""
TIERS = "sys/devices/virtual/memory_tiering"


def read_nodes(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with the nodes and memory that the snapshot shows; needs its dax regions."""
    ids = node_ids(snapshot) or [ONLY]
    owners = _owners(snapshot, ids)
    if not owners and not iomem(snapshot, "System RAM"):
        owners = _by_size(snapshot, ids)
    layout = _layout(snapshot, sorted(owners.keys() & set(numbered(snapshot, BLOCKS, "memory"))))
    kmem = _kmem(topology.dax_regions, layout.block_size)
    layout = evolve(layout, online=_by_hand(layout, owners, kmem))
    ram = _ram(snapshot, layout.block_size, owners, kmem)
    memory = _by_node(snapshot, ram, layout.block_size, owners)
    targets = {region.target_node: region for region in topology.dax_regions}
    only_dax = targets.keys() - memory.keys()
    tiers = _tiers(snapshot)
    none: list[int] = []
    rows = [value(snapshot, f"{NODES}/node{nid}/distance", DISTANCES, none) for nid in ids]
    known = frozenset(ids) | targets.keys()
    possible = id_set(snapshot, f"{NODES}/possible", frozenset(ids))
    generic = id_set(snapshot, f"{NODES}/has_generic_initiator")
    alive = {cpu.node for cpu in topology.cpus} | generic | {nid for nids in owners.values() for nid in nids}
    return evolve(
        topology,
        nodes=tuple(
            with_what_it_says(
                snapshot,
                Node(
                    nid,
                    memory.get(nid, ()),
                    _kind(snapshot, memory.get(nid, ()), targets.get(nid)),
                    memory_tier=tiers.get(nid, Node(nid).memory_tier),
                ),
                topology.cpus,
            )
            for nid in ids
        ),
        distances=tuple(map(tuple, rows)) if all(len(row) == len(ids) for row in rows) else (),
        hugepage_sizes=hugepage_sizes(snapshot, [HUGEPAGES, *(f"{NODES}/node{nid}/hugepages" for nid in ids)]),
        possible_nodes=format_list(possible - known),
        online_nodes=format_list(frozenset(ids) - alive),
        generic_initiators=format_list(generic),
        memory=layout,
        dax_regions=tuple(
            evolve(region, memory_tier=tiers[region.target_node])
            if region.target_node in tiers and region.target_node in only_dax
            else region
            for region in topology.dax_regions
        ),
    )


def _by_size(snapshot: Snapshot, ids: list[int]) -> dict[int, tuple[int, ...]]:
    # of a recording that shows neither blocks nor the address map: what each node has, in blocks from the bottom up
    found: dict[int, tuple[int, ...]] = {}
    for nid in ids:
        for _ in range(-(-_mem_total(snapshot, nid) // MemoryLayout().block_size)):
            found[len(found)] = (nid,)
    return found


def _owners(snapshot: Snapshot, ids: list[int]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for nid in ids:
        for block in numbered(snapshot, f"{NODES}/node{nid}", "memory"):
            found[block] = (*found.get(block, ()), nid)
    return found


def _mem_total(snapshot: Snapshot, nid: int) -> int:
    node = meminfo(snapshot, nid)
    if not node and not snapshot.names(NODES):
        whole = re.search(r"^MemTotal:\s+([0-9]+) kB$", text(snapshot, "proc/meminfo"), re.MULTILINE)
        return int(whole[1]) * 1024 if whole else 0
    return node.get("MemTotal", 0) * 1024


def block_size(snapshot: Snapshot) -> int:
    """Bytes of a memory block."""
    size = value(snapshot, f"{BLOCKS}/block_size_bytes", BARE_HEX, 0)
    if not size:
        # hwloc's recordings lack it: the power of two that makes the blocks hold what the nodes have
        ids = node_ids(snapshot)
        blocks, total = len(_owners(snapshot, ids)), sum(_mem_total(snapshot, nid) for nid in ids)
        size = MemoryLayout().block_size
        while blocks and size * blocks < total:
            size *= 2
    return size


def memory_of(snapshot: Snapshot, nid: int) -> Ranges:
    """The memory blocks of a node."""
    size = block_size(snapshot)
    return Ranges.of(Range(block * size, (block + 1) * size) for block in _owners(snapshot, [nid]))


def _layout(snapshot: Snapshot, blocks: list[int]) -> MemoryLayout:
    offline, movable = [], []
    for block in blocks:
        state = value(snapshot, f"{BLOCKS}/memory{block}/state", WORD, "online")
        zones = value(snapshot, f"{BLOCKS}/memory{block}/valid_zones", LINE, "")
        if state == "offline":
            offline.append(block)
        elif zones == "Movable":
            movable.append(block)
    auto = value(snapshot, f"{BLOCKS}/auto_online_blocks", WORD, "online")
    return MemoryLayout(block_size(snapshot), format_list(offline), format_list(movable), auto)


def _kmem(regions: Iterable[DaxRegion], size: int) -> Ranges:
    # the memory blocks that kmem brought
    return Ranges.of(
        block
        for region in regions
        for device in region.devices
        if device.driver is Driver.KMEM
        for block in Ranges.of(device.mappings).aligned_in(size)
    )


def _by_hand(layout: MemoryLayout, owners: Iterable[int], kmem: Ranges) -> str:
    if layout.auto_online != "offline":
        return ""
    offline = parse_list(layout.offline)
    return format_list(block for block in owners if block * layout.block_size in kmem and block not in offline)


def _ram(snapshot: Snapshot, size: int, owners: dict[int, tuple[int, ...]], kmem: Ranges) -> Ranges:
    found = iomem(snapshot, "System RAM")
    blocks = [Range(block * size, (block + 1) * size) for block in owners]
    # a block of which iomem says nothing is whole: iomem is not for everybody, and other drivers name theirs
    return (found | Ranges.of(block for block in blocks if not any(found.within(block)))) - kmem


def _by_node(
    snapshot: Snapshot, ram: Ranges, size: int, owners: dict[int, tuple[int, ...]]
) -> dict[int, tuple[Memory, ...]]:
    spans = _spans(snapshot)
    edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
    found: dict[int, list[Memory]] = {}
    for part in ram:
        at = part.start
        while at < part.end:
            stop = min(align_down(at, size) + size, part.end)
            nids = owners.get(at // size, ())
            if len(nids) == 1:
                nid = nids[0]
            else:
                # nodes share the block: a piece is that of the node with a zone around it; of several that with an
                # edge there, or the narrowest
                stop = min([stop, *(edge for edge in edges if at < edge < stop)])
                around = [
                    (start != at and end != stop, end - start, nid)
                    for start, end, nid in spans
                    if start <= at < end and nid in (nids or (nid,))
                ]
                nid = min(around)[2] if around else next(iter(nids), 0)
            mine = found.setdefault(nid, [])
            if mine and mine[-1].range.end == at:
                mine[-1] = Memory(Range(mine[-1].range.start, stop))
            else:
                mine.append(Memory(Range(at, stop)))
            at = stop
    return {nid: tuple(memory) for nid, memory in found.items()}


def _spans(snapshot: Snapshot) -> list[tuple[int, int, int]]:
    # of every zone: the first address, the end, the node
    zones = re.split(r"^Node ", text(snapshot, "proc/zoneinfo"), flags=re.MULTILINE)[1:]
    found: list[tuple[int, int, int]] = []
    for zone in zones:
        spanned = re.search(r"spanned +([0-9]+)", zone)
        start = re.search(r"start_pfn: +([0-9]+)", zone)
        if spanned and start and int(spanned[1]):
            first = int(start[1]) * PAGE_SIZE
            found.append((first, first + int(spanned[1]) * PAGE_SIZE, int(zone.split(",")[0])))
    return found


def _tiers(snapshot: Snapshot) -> dict[int, int]:
    found = {}
    for tier in numbered(snapshot, TIERS, "memory_tier"):
        for nid in id_set(snapshot, f"{TIERS}/memory_tier{tier}/nodelist"):
            found[nid] = tier
    return found


def _kind(snapshot: Snapshot, memory: tuple[Memory, ...], region: DaxRegion | None) -> MemoryKind:
    if not memory:
        return region.kind if region else MemoryKind.DRAM
    windows = iomem(snapshot, "CXL Window [0-9]+")
    return MemoryKind.CXL if all(windows.covers(part.range) for part in memory) else MemoryKind.DRAM
