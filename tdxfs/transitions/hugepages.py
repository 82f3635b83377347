"""Pools of huge pages: they take memory from their node; compare mm/hugetlb.c."""

from __future__ import annotations

from collections.abc import Mapping

from tdxfs import nodes
from tdxfs.capability import online_memory
from tdxfs.counters import free_kib
from tdxfs.model import KIB, Machine, changed


def set_node_pages(machine: Machine, nid: int, size: int, pages: int) -> Machine:
    """Make a node's pool of `size` kB hold `pages` huge pages, or as many as its free memory has room for."""
    return _with_pools(machine, size, {nid: min(pages, held(machine, nid, size) + room(machine, nid, size))})


def set_pages(machine: Machine, size: int, pages: int) -> Machine:
    """The same for the whole machine: in turns from the nodes with memory, and back in turns."""
    pools = {nid: held(machine, nid, size) for nid in sorted(nodes.has_memory(machine))}
    wanted = pages - sum(pools.values())
    spare = {nid: room(machine, nid, size) if wanted > 0 else pool for nid, pool in pools.items()}
    step = 1 if wanted > 0 else -1
    left = abs(wanted)
    while left and any(spare.values()):
        willing = [nid for nid, pages_left in spare.items() if pages_left]
        share = max(left // len(willing), 1)
        for nid in willing:
            moved = min(share, spare[nid], left)
            pools[nid] += step * moved
            spare[nid] -= moved
            left -= moved
    return _with_pools(machine, size, pools)


def demote(machine: Machine, nid: int | None, size: int, pages: int) -> Machine:
    """Split huge pages of `size` kB into pages of the next smaller size; None: of any node."""
    into = smaller(machine, size)
    assert into is not None, f"{size} kB is the smallest size"
    for node in sorted(nodes.has_memory(machine)) if nid is None else [nid]:
        moved = min(pages, held(machine, node, size))
        pages -= moved
        large = {node: held(machine, node, size) - moved}
        small = {node: held(machine, node, into) + moved * (size // into)}
        machine = _with_pools(_with_pools(machine, size, large), into, small)
    return machine


def smaller(machine: Machine, size: int) -> int | None:
    """The size, kB, that huge pages of `size` kB become when they are demoted; None: there is no smaller one."""
    return max((other for other in machine.topology.hugepage_sizes if other < size), default=None)


def held(machine: Machine, nid: int, size: int) -> int:
    """Huge pages in a node's pool."""
    return machine.hugepages.get((nid, size), 0)


def room(machine: Machine, nid: int, size: int) -> int:
    """How many more huge pages a node's free memory has room for."""
    memory = (online_memory(machine, nid) - machine.tdx.owned).aligned_in(size * KIB)
    aligned = memory.size // (size * KIB) - held(machine, nid, size)
    return max(min(aligned, free_kib(machine, nid) // size), 0)


def _with_pools(machine: Machine, size: int, pools: Mapping[int, int]) -> Machine:
    pages = machine.hugepages
    for nid, count in pools.items():
        pages = pages.set((nid, size), count)
    records = {name: text for name, text in machine.records.items() if name not in ("meminfo", "zoneinfo")}
    return changed(machine, hugepages=pages, records=records)
