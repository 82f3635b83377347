"""The set-up of the TDX module at boot, and every line that Linux prints about it (arch/x86/virt/vmx/tdx/tdx.c)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from attrs import define, evolve, field

from tdxfs.kmsg import ERR, INFO, WARN, Log
from tdxfs.model import (
    MIB,
    PAGE_SIZE,
    Block,
    Tdx,
    Topology,
    Zone,
    kernel_at_least,
)
from tdxfs.policy import Boot, Cover, Policies
from tdxfs.ranges import Range, Ranges, RunMap, align_up
from tdxfs.tdmr import Exhausted, NoRoom, TdxMemblock, construct_tdmrs
from tdxfs.zones import DMA32_END

LOW_MEMORY = Range(0, MIB)
"""Never TDX memory, and never given away on x86."""
ENOMEM, EINVAL, ENOSPC = 12, 22, 28


def ram_of(topology: Topology, *, hotplug: bool) -> Iterator[tuple[int, int, int]]:
    """(start, end, node) of the memory there is at boot, or of what is added later, in bytes, half-open."""
    for node in topology.nodes:
        for memory in node.memory:
            if memory.hotplug is hotplug:
                yield memory.range.start, memory.range.end, node.id


def init_tdx(topology: Topology, policies: Policies, ram: RunMap[int], blocks: RunMap[Block], log: Log) -> Tdx:
    """
    What the set-up of the TDX module leaves: TDMRs and their PAMTs, or why it is off. `ram` (bytes -> node) and
    `blocks` (block id -> block) are those of early boot; what the kernel prints goes to `log`.
    """
    platform = topology.tdx
    if platform is None:
        return Tdx(disabled_reason="the platform has no TDX")
    end = platform.first_keyid + platform.keyids
    log.tdx(INFO, f"BIOS enabled: private KeyID range [{platform.first_keyid}, {end})")
    low = Ranges.of(Range(a, b) for a, b, _ in ram.within(LOW_MEMORY.start, LOW_MEMORY.end))
    if platform.keyids < 2:
        log.tdx(ERR, "initialization failed: too few private KeyIDs available.")
        return Tdx(disabled_reason="too few private KeyIDs", owned=low)
    if policies.boot is Boot.OFF:
        return Tdx(disabled_reason="booted with boot=off", owned=low)
    major, minor, update = platform.module_version
    log.tdx(INFO, f"Module version: {major}.{minor}.{update:02}")
    convertible = Ranges.of(platform.cmrs)
    all_ram = Ranges.of(Range(a, b) for a, b, _ in ram.runs()) - Ranges((LOW_MEMORY,))
    culprits = all_ram - convertible
    if policies.boot is Boot.STRICT and culprits:
        first = culprits.parts[0]
        log.tdx(ERR, f"[0x{first.start:x}, 0x{first.end:x}) is not fully convertible memory")
        reason = f"System RAM [0x{first.start:x}, 0x{first.end:x}) is not convertible memory"
        return _failed(topology, log, EINVAL, Tdx(disabled_reason=reason, culprits=culprits, owned=low))
    memlist = _memlist(topology, policies.cover, ram, convertible)
    if not memlist:
        return _failed(topology, log, EINVAL, Tdx(disabled_reason="no memory is convertible", owned=low))
    # the kernel keeps nothing of its own in ZONE_MOVABLE, and a block that holds a PAMT cannot go offline
    size = topology.memory.block_size
    no_kernel = [(a, b) for a, b, block in blocks.runs() if not block.online or block.zone is Zone.MOVABLE]
    free = PamtSpace(ram, convertible - Ranges.of(Range(a * size, b * size) for a, b in no_kernel))
    try:
        tdmrs = construct_tdmrs(memlist, platform, free.allocate, lambda text: log.tdx(WARN, text))
    except Exhausted as exhausted:
        log.tdx(WARN, str(exhausted))
        reason = "the TDMRs are exhausted" if exhausted.limit == "tdmrs" else "a TDMR's reserved areas are exhausted"
        return _failed(topology, log, ENOSPC, Tdx(disabled_reason=reason, exhausted=exhausted.limit, owned=low))
    except NoRoom:
        return _failed(topology, log, ENOMEM, Tdx(disabled_reason="no room for the PAMTs", owned=low))
    pamts = Ranges.of(tdmr.pamt for tdmr in tdmrs)
    log.tdx(INFO, f"{pamts.size // 1024} KB allocated for PAMT")
    log.tdx(INFO, f"{_module(topology)} initialized")
    return Tdx(enabled=True, tdmrs=tdmrs, owned=low | pamts)


def _module(topology: Topology) -> str:
    return "TDX-Module" if kernel_at_least(topology.kernel, "7.3") else "module"


def _failed(topology: Topology, log: Log, number: int, tdx: Tdx) -> Tdx:
    log.tdx(ERR, f"{_module(topology)} initialization failed (-{number})")
    return tdx


def _memlist(topology: Topology, cover: Cover, ram: RunMap[int], convertible: Ranges) -> list[TdxMemblock]:
    # build_tdx_memlist(): from 1 MiB up, one entry per region and node
    memory = list(ram.runs())
    if cover is Cover.CONVERTIBLE:
        memory += ram_of(topology, hotplug=True)
        memory += (
            (region.range.start, region.range.end, region.target_node)
            for region in topology.dax_regions
            if region.target_node is not None
        )
    blocks = [
        TdxMemblock(part, nid)
        for start, end, nid in memory
        for part in convertible.within(Range(start, end))
    ]  # fmt: skip
    known = Ranges.of(Range(start, end) for start, end, _ in memory)
    if cover is Cover.CONVERTIBLE:
        # convertible ranges of no node: nothing to put there today, but the TDMRs are made once
        first = blocks[0].nid if blocks else 0
        blocks += [TdxMemblock(part, first) for part in convertible - known]
    above = (block for block in blocks if block.range.end > LOW_MEMORY.end)
    clamped = (evolve(b, range=Range(max(b.range.start, LOW_MEMORY.end), b.range.end)) for b in above)
    return sorted(clamped, key=lambda block: block.range.start)


@define
class PamtSpace:
    """
    Where PAMTs come from: contiguous RAM of `possible` ranges, first fit, the highest
    zone of the node first, as alloc_contig_pages() looks.
    """

    ram: RunMap[int]
    possible: Ranges
    free: dict[int, list[Range]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for start, end, nid in self.ram.runs():
            for part in self.possible.within(Range(start, end)):
                for low, high in ((LOW_MEMORY.end, DMA32_END), (DMA32_END, 1 << 64)):
                    a, b = max(part.start, low), min(part.end, high)
                    if a < b:
                        self.free.setdefault(nid, []).append(Range(a, b))
        for parts in self.free.values():
            parts.sort(key=lambda part: (part.start < DMA32_END, part.start))

    def allocate(self, size: int, nid: int | None) -> Range | None:
        """A place of `size` bytes, from node `nid` if it has one, and out of the free space."""
        near = (nid,) if nid in self.free else ()
        for candidate in chain(near, (other for other in self.free if other != nid)):
            parts = self.free[candidate]
            for at, part in enumerate(parts):
                start = align_up(part.start, PAGE_SIZE)
                if start + size <= part.end:
                    rest = [Range(a, b) for a, b in ((part.start, start), (start + size, part.end)) if a < b]
                    parts[at : at + 1] = rest
                    return Range(start, start + size)
        return None
