"""TDX capability of any memory, derived from address ranges and from nothing else.

A byte can back a TDX guest if it is convertible (inside a CMR) and covered (inside a TDMR and
in no reserved area of it). Memory that no allocator gives away, the PAMTs and the first MiB,
is counted but does not make its node mixed: no guest could ever get it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from attrs import frozen

from tdxfs.model import PAGE_SIZE, Machine, Why
from tdxfs.nodes import block_runs, has_memory, pfn_to_nid
from tdxfs.ranges import Range, Ranges

CAPABLE, MIXED, INCAPABLE = "capable", "mixed", "incapable"


@frozen
class Hole:
    """A range that cannot back a TDX guest, and why not."""

    range: Range
    why: Why


@frozen
class Verdict:
    """
    What a set of ranges is worth to a TDX guest. Truthy when *capable*: every byte
    that can be given away is usable.
    """

    total: int
    """Bytes."""
    convertible: int
    """Bytes inside a CMR."""
    usable: int
    """Bytes that are convertible, covered by a TDMR, and neither reserved nor the kernel's."""
    holes: tuple[Hole, ...]
    """What can be given away and is not usable; adjacent ranges of one reason are one hole."""

    @property
    def word(self) -> str:
        """``capable``, ``mixed`` or ``incapable``."""
        if not self.holes:
            return CAPABLE
        return MIXED if self.usable else INCAPABLE

    def __bool__(self) -> bool:
        return not self.holes


def judge(machine: Machine, ranges: Ranges) -> Verdict:
    """The verdict on any memory of the machine: O(log n + pieces)."""
    holes: list[Hole] = []
    usable = convertible = 0
    for part in ranges:
        at = part.start
        for start, end, why in machine.tdx_memory.within(part.start, part.end):
            if at < start:
                holes.append(Hole(Range(at, start), Why.NOT_CONVERTIBLE))
            at = end
            convertible += (end - start) if why is not Why.NOT_CONVERTIBLE else 0
            if why is Why.CAPABLE:
                usable += end - start
            else:
                holes.append(Hole(Range(start, end), why))
        if at < part.end:
            holes.append(Hole(Range(at, part.end), Why.NOT_CONVERTIBLE))
    return Verdict(ranges.size, convertible, usable, _given_away(machine, holes))


def _given_away(machine: Machine, holes: list[Hole]) -> tuple[Hole, ...]:
    kept: list[Hole] = []
    for hole in holes:
        for part in Ranges((hole.range,)) - machine.tdx.owned:
            if kept and kept[-1].why is hole.why and kept[-1].range.end == part.start:
                kept[-1] = Hole(Range(kept[-1].range.start, part.end), hole.why)
            else:
                kept.append(Hole(part, hole.why))
    return tuple(kept)


def judge_node(machine: Machine, nid: int) -> Verdict:
    """The verdict on the online memory of a node."""
    return judge(machine, online_memory(machine, nid))


@lru_cache(maxsize=4)
def node_verdicts(machine: Machine) -> dict[int, Verdict]:
    """The verdict on each node that has memory online, by node id."""
    return {nid: judge_node(machine, nid) for nid in sorted(has_memory(machine))}


def online_memory(machine: Machine, nid: int) -> Ranges:
    """System RAM of a node that is online."""
    ram = machine.node_ram.get(nid, Ranges())
    size = machine.topology.memory.block_size
    runs = list(block_runs(machine, nid))
    if all(block.online for _, _, block in runs):
        return ram
    return ram & Ranges.of(Range(start * size, end * size) for start, end, block in runs if block.online)


def judge_block(machine: Machine, block_id: int) -> Verdict:
    """The verdict on a memory block, online or not."""
    size = machine.topology.memory.block_size
    window = Range(block_id * size, (block_id + 1) * size)
    return judge(machine, Ranges(tuple(Range(a, b) for a, b, _ in machine.ram.within(window.start, window.end))))


def judge_dax(machine: Machine, key: tuple[int, int]) -> Verdict:
    """The verdict on a dax device's own mappings, whatever its driver."""
    return judge(machine, Ranges.of(machine.dax[key].mappings))


def judge_target_node(machine: Machine, key: tuple[int, int]) -> Verdict:
    """
    The verdict on a dax device's target node as it would be with the device
    onlined there: whole memory blocks only, as kmem takes them.
    """
    target = machine.regions[key[0]].target_node
    there = Ranges() if target is None else online_memory(machine, target)
    mine = Ranges.of(machine.dax[key].mappings).aligned_in(machine.topology.memory.block_size)
    return judge(machine, there | mine)


def blocks_of(machine: Machine, ranges: Iterable[Range]) -> Ranges:
    """Numbers of the memory blocks that the ranges touch."""
    size = machine.topology.memory.block_size
    return Ranges.of(Range(part.start // size, -(-part.end // size)) for part in ranges)


def incapable_blocks_of(machine: Machine, nid: int) -> Ranges:
    """Numbers of the online memory blocks of a node that are not capable, found from the holes."""
    touched = blocks_of(machine, (hole.range for hole in judge_node(machine, nid).holes))
    return touched & Ranges.of(Range(a, b) for a, b, block in machine.node_blocks[nid].runs() if block.online)


@frozen
class Page:
    """What is known about one page frame."""

    pfn: int
    node: int | None
    """None: no memory there."""
    why: Why
    dax: str
    """Name of the dax device that maps it, or empty."""
    tdmr: int | None
    """Index of the TDMR around it."""


def page(machine: Machine, pfn: int) -> Page:
    """Node, verdict, dax device and TDMR of a page frame: O(log ranges)."""
    address = pfn * PAGE_SIZE
    why = machine.tdx_memory.get(address) or Why.NOT_CONVERTIBLE
    key = machine.dax_at.get(address)
    return Page(pfn, pfn_to_nid(machine, pfn), why, machine.dax[key].name if key else "", machine.tdmr_at.get(address))
