"""Boot: ``Topology x policies -> Machine``.

What happens, in the kernel's order: the firmware hands over its memory map, the kernel makes
memory blocks of it, the TDX module is set up with the memory present by then, and after that
the dax drivers probe and memory that was hot-added goes online. Every TDX message that Linux prints on
the way stands in the log with Linux's text and level (arch/x86/virt/vmx/tdx/tdx.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

from attrs import define, evolve, field
from immutables import Map

from tdxfs.counters import free_kib, total_kib
from tdxfs.errors import Refusal
from tdxfs.idlist import parse_list
from tdxfs.kmsg import ERR, INFO, WARN
from tdxfs.model import (
    HUGEPAGE_SIZES,
    MIB,
    PAGE_SIZE,
    Block,
    DaxState,
    Driver,
    LogRecord,
    Machine,
    Memory,
    MemoryKind,
    Node,
    RegionState,
    Tdx,
    TdxPlatform,
    Topology,
    Why,
    Zone,
    kernel_at_least,
    with_device,
)
from tdxfs.policy import Boot, Cover, Firmware, Policies
from tdxfs.ranges import Range, Ranges, RunMap, align_up
from tdxfs.tdmr import Exhausted, NoRoom, TdxMemblock, construct_tdmrs
from tdxfs.transitions import kmem
from tdxfs.transitions.memory import add_memory
from tdxfs.zones import DMA32_END, DMA_END, zone_of

LOW_MEMORY = Range(0, MIB)
"""Never TDX memory, and never given away on x86."""
ENOMEM, EINVAL, ENOSPC = 12, 22, 28


@define
class Log:
    """The emulated kernel log while it is being written."""

    records: list[LogRecord] = field(factory=list)

    def say(self, level: int, text: str) -> None:
        """Append one line, a plausible while after the one before."""
        usec = self.records[-1].usec + 1_731 if self.records else 0
        self.records.append(LogRecord(level, usec, text))

    def tdx(self, level: int, text: str) -> None:
        self.say(level, f"virt/tdx: {text}")


def boot(topology: Topology, policies: Policies | None = None) -> Machine:
    """
    Boot `topology` under `policies` (None: its own). Needs a topology without
    problems (`validate.problems`).

    >>> from tdxfs.model import Topology
    >>> boot(Topology()).tdx.disabled_reason
    'the platform has no TDX'
    """
    policies = topology.policies if policies is None else policies
    log = Log()
    log.say(5, topology.banner)
    log.say(INFO, f"Command line: {topology.cmdline}")
    built = topology
    topology, hidden = _firmware(topology, policies)
    early = RunMap.of(_ram(topology.nodes, hotplug=False))
    log.say(INFO, f"x86/mm: Memory block size: {topology.memory.block_size // MIB}MB")
    blocks = RunMap.of(_boot_blocks(topology, early))
    tdx = _init_tdx(topology, policies, early, blocks, log)
    verdicts = RunMap.of(_verdicts(topology, tdx, early))
    machine = Machine(
        topology=topology,
        built=built,
        policies=policies,
        ram=early,
        blocks=blocks,
        dax=Map(_dax_devices(topology)),
        cpus_online=frozenset(cpu.id for cpu in topology.cpus if cpu.online),
        tdx=tdx,
        tdx_memory=verdicts,
        auto_online=topology.memory.auto_online,
        dax_regions=Map(_region_states(topology)),
        hugepages=Map(_hugepages(topology)),
        hidden=hidden,
        log=tuple(log.records),
    )
    machine = _hot_add(machine)
    recorded = {nid: (total_kib(machine, nid), free_kib(machine, nid)) for nid in topology.counters}
    return evolve(machine, recorded_memory=recorded, records=topology.records)


# --- firmware -----------------------------------------------------------------------


def _firmware(topology: Topology, policies: Policies) -> tuple[Topology, RunMap[int]]:
    # firmware=disable-incapable takes inconvertible CXL memory off the memory map (T12)
    if policies.firmware is Firmware.PERMISSIVE or topology.tdx is None:
        return topology, RunMap()
    cmrs = Ranges.of(topology.tdx.cmrs)
    hidden: list[tuple[int, int, int]] = []
    nodes = []
    for node in topology.nodes:
        kept: list[Memory] = []
        for memory in node.memory:
            left = Ranges((memory.range,))
            if node.kind is MemoryKind.CXL:
                left &= cmrs
            if memory.hotplug:
                left = left.aligned_in(topology.memory.block_size)
            hidden.extend((part.start, part.end, node.id) for part in Ranges((memory.range,)) - left)
            kept.extend(evolve(memory, range=part) for part in left)
        nodes.append(evolve(node, memory=tuple(kept)))
    regions = []
    for region in topology.dax_regions:
        if region.kind is MemoryKind.CXL and not cmrs.covers(region.range):
            hidden.append(
                (region.range.start, region.range.end, -1 if region.target_node is None else region.target_node)
            )
        else:
            regions.append(region)
    return evolve(topology, nodes=tuple(nodes), dax_regions=tuple(regions)), RunMap.of(hidden)


def _ram(nodes: Iterable[Node], *, hotplug: bool) -> Iterator[tuple[int, int, int]]:
    for node in nodes:
        for memory in node.memory:
            if memory.hotplug is hotplug:
                yield memory.range.start, memory.range.end, node.id


# --- memory blocks ------------------------------------------------------------------


def _boot_blocks(topology: Topology, ram: RunMap[int]) -> Iterator[tuple[int, int, Block]]:
    # A block's zone is the one zone of its node whose span it meets (drivers/base/memory.c
    # early_node_zone_for_memory_block); a block of two nodes has none.
    size = topology.memory.block_size
    offline, movable = parse_list(topology.memory.offline), parse_list(topology.memory.movable)
    special = sorted(offline | movable)
    pieces: dict[int, set[int]] = {}  # blocks at the edges of memory, where two nodes can meet
    inner: list[tuple[int, int, int]] = []
    spans: dict[int, Range] = {}
    for start, end, nid in ram.runs():
        first, last = start // size, (end - 1) // size
        pieces.setdefault(first, set()).add(nid)
        pieces.setdefault(last, set()).add(nid)
        inner.append((first + 1, last, nid))
        span = spans.get(nid)
        spans[nid] = Range(min(start, span.start), max(end, span.end)) if span else Range(start, end)

    def block(low: int, high: int, nodes: tuple[int, ...]) -> Iterator[tuple[int, int, Block]]:
        # cut where the zone, the state or the movability changes
        cuts = {low, high}
        for edge in (DMA_END, DMA32_END):
            cuts.update(at for at in (edge // size, align_up(edge, size) // size) if low < at < high)
        cuts.update(at for number in special for at in (number, number + 1) if low < at < high)
        edges = sorted(cuts)
        for a, b in pairwise(edges):
            if a in offline:
                yield a, b, Block(nodes, False)
                continue
            zone = Zone.MOVABLE if a in movable else _one_zone(Range(a * size, b * size), nodes, spans)
            yield a, b, Block(nodes, True, zone)

    for first, last, nid in inner:
        if first < last:
            yield from block(first, last, (nid,))
    for number, nids in pieces.items():
        yield from block(number, number + 1, tuple(sorted(nids)))


def _one_zone(block: Range, nodes: tuple[int, ...], spans: dict[int, Range]) -> Zone | None:
    if len(nodes) != 1:
        return None
    span = spans[nodes[0]]
    start, end = max(block.start, span.start), min(block.end, span.end)
    first, last = zone_of(start), zone_of(end - 1)
    return first if first is last else None


# --- TDX ----------------------------------------------------------------------------


def _init_tdx(topology: Topology, policies: Policies, ram: RunMap[int], blocks: RunMap[Block], log: Log) -> Tdx:
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
        memory += _ram(topology.nodes, hotplug=True)
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


def _verdicts(topology: Topology, tdx: Tdx, ram: RunMap[int]) -> Iterator[tuple[int, int, Why]]:
    # every byte of memory there is or can be: one verdict
    platform = topology.tdx or TdxPlatform()
    convertible = Ranges.of(platform.cmrs)
    memory = [Range(a, b) for a, b, _ in ram.runs()]
    memory += (Range(a, b) for a, b, _ in _ram(topology.nodes, hotplug=True))
    memory += (region.range for region in topology.dax_regions)
    memory += (bar.range for device in topology.pci_devices for bar in device.bars)
    everything = Ranges.of([*memory, *convertible])
    covered = Ranges.of(tdmr.range for tdmr in tdx.tdmrs)
    reserved = Ranges.of(area for tdmr in tdx.tdmrs for area in tdmr.reserved)
    possible = everything & convertible
    for why, ranges in (
        (Why.NOT_CONVERTIBLE, everything - convertible),
        (Why.NOT_COVERED, possible - covered),
        (Why.RESERVED, possible & reserved),
        (Why.CAPABLE, (possible & covered) - reserved),
    ):
        for part in ranges:
            yield part.start, part.end, why


# --- after the TDX module is set up ---------------------------------------------------


def _dax_devices(topology: Topology) -> Iterator[tuple[tuple[int, int], DaxState]]:
    minor = 0
    for region in topology.dax_regions:
        for device in region.devices:
            minor = minor if device.minor is None else device.minor
            yield (
                (region.id, device.id),
                DaxState(
                    region.id,
                    device.id,
                    device.mappings,
                    device.driver,
                    device.align or region.align,
                    device.memmap_on_memory,
                    minor,
                ),
            )
            minor += 1


def _region_states(topology: Topology) -> Iterator[tuple[int, RegionState]]:
    for region in topology.dax_regions:
        if region.seed is not None or region.youngest is not None:
            yield region.id, RegionState(region.seed, region.youngest)


def _hugepages(topology: Topology) -> Iterator[tuple[tuple[int, int], int]]:
    for nid, recorded in topology.counters.items():
        if pages := recorded.meminfo.get("HugePages_Total", 0):
            yield (nid, HUGEPAGE_SIZES[0]), pages


def _hot_add(machine: Machine) -> Machine:
    # memory modules and kmem devices, in address order
    layout = machine.topology.memory
    offline, movable, by_hand = map(parse_list, (layout.offline, layout.movable, layout.online))

    def how(block_id: int) -> str:
        word = "online" if layout.auto_online == "offline" and block_id in by_hand else layout.auto_online
        if block_id in offline or word == "offline":
            return "offline"
        return "online_movable" if block_id in movable else word

    def movably(block_id: int) -> str:
        return "offline" if how(block_id) == "offline" else "online_movable"

    for node in machine.topology.nodes:
        for memory in node.memory:
            if memory.hotplug:
                try:
                    machine = add_memory(machine, node.id, memory.range, movably if memory.movable else how)
                except Refusal as refusal:
                    machine = refusal.machine or machine
    bound = [device for device in machine.dax.values() if device.driver is Driver.KMEM]
    for device in sorted(bound, key=lambda device: device.minor):
        try:
            machine = kmem.probe(machine, device, how)
        except Refusal as refusal:
            machine = refusal.machine or machine
            unbound = evolve(device, driver=None)
            machine = with_device(machine, unbound)
    return machine
