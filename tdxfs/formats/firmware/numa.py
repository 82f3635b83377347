"""Firmware to topology: how Linux reads what it is told.

Compare drivers/acpi/numa/srat.c, mm/numa_memblks.c and arch/x86/mm. What firmware does not say comes from the caller,
as `Unsaid`.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from tdxfs.errors import UserError
from tdxfs.formats.firmware import performance
from tdxfs.formats.firmware.cpus import cpus_of
from tdxfs.formats.firmware.dax import regions_of
from tdxfs.formats.firmware.domains import Domains
from tdxfs.formats.firmware.facts import Firmware, MapEntry, MapKind, MemoryAffinity
from tdxfs.formats.firmware.memory_map import apply_cmdline, of_kind, ram_of
from tdxfs.formats.firmware.unsaid import NOTHING_SAID, Unsaid
from tdxfs.idlist import format_list
from tdxfs.model import GIB, MIB, Cpu, Memory, Node, Topology, kernel_at_least
from tdxfs.ranges import Range, Ranges

LARGE_BLOCK_MEMORY = 64 * GIB
"""MEM_SIZE_FOR_LARGE_BLOCK: below it, memory blocks have the smallest size."""
SMALLEST_BLOCK, LARGEST_BLOCK = 128 * MIB, 2 * GIB
UNCOVERED_LIMIT = MIB
"""How much RAM may lie outside SRAT before Linux does not believe it."""
TIERS_BY_HMAT = "6.12"
"""The kernel since which HMAT decides the memory tier (6.7)."""
ADVISED_BLOCKS = "7.3"
"""The kernel since which a CXL window limits the size of memory blocks (6.15)."""


def read_firmware(firmware: Firmware, base: Topology, unsaid: Unsaid = NOTHING_SAID) -> Topology:
    """
    The topology that `base`'s kernel finds with this firmware. Of `base` everything is kept that firmware does not
    say: caches, policies, the TDX platform, the command line. UserError if there is no memory or no processor.
    """
    memory_map = apply_cmdline(firmware.memory_map or tuple(_map_of(firmware)), base.cmdline)
    ram = ram_of(memory_map)
    if not ram:
        raise UserError("the firmware describes no memory")
    firmware = _believed(firmware, ram)
    if unsaid.hypervisor is not None:
        firmware = evolve(firmware, hypervisor=unsaid.hypervisor)
    domains = Domains(firmware, base.kernel)
    cpus = cpus_of(firmware, domains, base.kernel, unsaid)
    soft = of_kind(memory_map, MapKind.SOFT_RESERVED)
    layout = evolve(
        base.memory, block_size=unsaid.block_size or _block_size(firmware, ram, base.kernel), offline="", movable=""
    )
    topology = evolve(
        base,
        cpus=cpus,
        possible_cpus=len(firmware.processors),
        microcode=0 if firmware.hypervisor else base.microcode or Topology().microcode,
        memory=layout,
        generic_initiators=format_list(domains.node(domain) for domain in firmware.initiators),
        nodes=tuple(_nodes(firmware, domains, cpus, ram, base)),
        distances=domains.matrix(firmware),
        possible_nodes=format_list(domains.windows),
    )
    return evolve(topology, dax_regions=tuple(regions_of(firmware, domains, topology, soft, unsaid)))


def _map_of(firmware: Firmware) -> Iterator[MapEntry]:
    for affinity in firmware.memory:
        if not affinity.hotplug and not affinity.nonvolatile:
            yield MapEntry(affinity.range, MapKind.RAM)


def _believed(firmware: Firmware, ram: Ranges) -> Firmware:
    # numa_meminfo_cover_memory(): SRAT must cover the RAM, else there is one node
    uncovered = ram - Ranges.of(affinity.range for affinity in firmware.memory)
    if uncovered.size < UNCOVERED_LIMIT:
        return firmware
    everything = MemoryAffinity(0, Range(0, 1 << 52))
    return evolve(
        firmware, memory=(everything,), processor_domains={}, distances=(), hmat=None, initiators=(), windows=()
    )


def _block_size(firmware: Firmware, ram: Ranges, kernel: str) -> int:
    # probe_memory_block_size()
    end = ram.parts[-1].end
    if end < LARGE_BLOCK_MEMORY:
        return SMALLEST_BLOCK
    largest = LARGEST_BLOCK
    if kernel_at_least(kernel, ADVISED_BLOCKS):
        for window in firmware.windows:
            edges = window.start | window.size
            largest = max(min(largest, edges & -edges), SMALLEST_BLOCK)
    size = largest
    while firmware.hypervisor and size > SMALLEST_BLOCK and end % size:
        size //= 2
    return size


def _nodes(firmware: Firmware, domains: Domains, cpus: tuple[Cpu, ...], ram: Ranges, base: Topology) -> Iterator[Node]:
    hmat = firmware.hmat
    with_cpus = {domains.domain(cpu.node) for cpu in cpus}
    initiators = with_cpus | set(firmware.initiators)
    memory = _memory(firmware, domains, ram, "movable_node" in base.cmdline.split())
    dram = None
    if hmat is not None and kernel_at_least(base.kernel, TIERS_BY_HMAT):
        dram_nodes = memory.keys() & {cpu.node for cpu in cpus}
        if dram_nodes:
            first = domains.domain(min(dram_nodes))
            dram = performance.access(hmat, first, initiators, with_cpus, 1, domains.node)
    targets = {affinity.domain for affinity in firmware.memory}
    for nid in sorted(domains.described):
        domain = domains.domain(nid)
        node = Node(nid, memory.get(nid, ()))
        if hmat is not None and domain in targets:
            best, cpu_best = (
                performance.access(hmat, domain, initiators, with_cpus, number, domains.node) for number in (0, 1)
            )
            tier = performance.tier(cpu_best, dram) if dram and domain not in with_cpus else None
            node = evolve(
                node,
                access0=best,
                access1=cpu_best,
                side_caches=performance.side_caches(hmat.caches, domain),
                memory_tier=node.memory_tier if tier is None else tier,
            )
        yield node


def _memory(firmware: Firmware, domains: Domains, ram: Ranges, movable_node: bool) -> dict[int, tuple[Memory, ...]]:
    # memory that the map calls usable, cut along SRAT; the little that may lie outside of it is lost
    found: dict[int, list[Memory]] = {}
    left = ram
    for affinity in firmware.memory:
        mine = left & Ranges((affinity.range,))
        left = left - mine
        for part in mine:
            movable = movable_node and affinity.hotplug
            found.setdefault(domains.node(affinity.domain), []).append(Memory(part, movable=movable))
    for affinity in firmware.modules:
        found.setdefault(domains.node(affinity.domain), []).append(Memory(affinity.range, hotplug=True))
    return {nid: tuple(_joined(parts)) for nid, parts in found.items()}


def _joined(parts: list[Memory]) -> Iterator[Memory]:
    parts = sorted(parts, key=lambda memory: memory.range)
    last: Memory | None = None
    for memory in parts:
        if last and last.range.end == memory.range.start and evolve(last, range=memory.range) == memory:
            last = evolve(last, range=Range(last.range.start, memory.range.end))
            continue
        if last:
            yield last
        last = memory
    if last:
        yield last
