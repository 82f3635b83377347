"""Boot: ``Topology x policies -> Machine``.

What happens, in the kernel's order: the firmware hands over its memory map, the kernel makes
memory blocks of it, the TDX module is set up with the memory present by then, and after that
the dax drivers probe and memory that was hot-added goes online. What Linux prints of the module on
the way stands in the log (`tdxinit`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from attrs import evolve
from immutables import Map

from tdxfs.counters import free_kib, total_kib
from tdxfs.errors import Refusal
from tdxfs.idlist import parse_list
from tdxfs.kmsg import INFO, Log
from tdxfs.model import (
    MIB,
    Block,
    DaxState,
    Driver,
    Machine,
    Memory,
    MemoryKind,
    RegionState,
    Tdx,
    TdxPlatform,
    Topology,
    Why,
    Zone,
    with_device,
)
from tdxfs.policy import Firmware, Policies
from tdxfs.ranges import Range, Ranges, RunMap, align_up
from tdxfs.tdxinit import init_tdx, ram_of
from tdxfs.transitions import dax, kmem
from tdxfs.transitions.memory import add_memory
from tdxfs.transitions.weights import with_bandwidths
from tdxfs.zones import DMA32_END, DMA_END, zone_of


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
    early = RunMap.of(ram_of(topology, hotplug=False))
    log.say(INFO, f"x86/mm: Memory block size: {topology.memory.block_size // MIB}MB")
    blocks = RunMap.of(_boot_blocks(topology, early))
    tdx = init_tdx(topology, policies, early, blocks, log)
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
        log=log.kept,
    )
    machine = with_bandwidths(machine)
    machine = dax.with_ids(_hot_add(machine))
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


# --- what can back a guest -----------------------------------------------------------


def _verdicts(topology: Topology, tdx: Tdx, ram: RunMap[int]) -> Iterator[tuple[int, int, Why]]:
    # every byte of memory there is or can be: one verdict
    platform = topology.tdx or TdxPlatform()
    convertible = Ranges.of(platform.cmrs)
    memory = [Range(a, b) for a, b, _ in ram.runs()]
    memory += (Range(a, b) for a, b, _ in ram_of(topology, hotplug=True))
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
                    nd=device.nd_id,
                    map_on_pmem=device.map_on_pmem,
                ),
            )
            minor += 1


def _region_states(topology: Topology) -> Iterator[tuple[int, RegionState]]:
    for region in topology.dax_regions:
        if not region.static and (region.seed is not None or region.youngest is not None):
            yield region.id, RegionState(region.seed, region.youngest)


def _hugepages(topology: Topology) -> Iterator[tuple[tuple[int, int], int]]:
    for nid, recorded in topology.counters.items():
        if topology.hugepage_sizes and (pages := recorded.meminfo.get("HugePages_Total", 0)):
            yield (nid, topology.default_hugepage), pages
    for node in topology.nodes:
        for size, pages in node.hugepages.items():
            yield (node.id, size), pages


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
