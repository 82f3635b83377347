"""Which NUMA nodes are in which state; compare ``node_states[]`` in mm/page_alloc.c."""

from __future__ import annotations

from collections.abc import Iterator

from tdxfs.idlist import parse_list
from tdxfs.model import PAGE_SIZE, Block, Machine, Zone, shared
from tdxfs.ranges import Ranges

LOCAL_DISTANCE, REMOTE_DISTANCE = 10, 20


@shared("topology")
def possible_nodes(machine: Machine) -> frozenset[int]:
    """Every node that can ever be: N_POSSIBLE."""
    topology = machine.topology
    targets = {region.target_node for region in topology.dax_regions if region.target_node is not None}
    return frozenset(machine.nodes) | targets | parse_list(topology.possible_nodes)


@shared("topology", "blocks")
def online_nodes(machine: Machine) -> frozenset[int]:
    """N_ONLINE: nodes with a CPU, a generic initiator, or memory blocks, online or not, and those said to be."""
    cpus = {cpu.node for cpu in machine.topology.cpus}
    others = parse_list(machine.topology.online_nodes)
    return frozenset(cpus) | machine.node_blocks.keys() | generic_initiators(machine) | others


@shared("topology")
def generic_initiators(machine: Machine) -> frozenset[int]:
    """N_GENERIC_INITIATOR."""
    return parse_list(machine.topology.generic_initiators)


@shared("blocks")
def has_memory(machine: Machine) -> frozenset[int]:
    """N_MEMORY: nodes with a memory block online."""
    return frozenset(nid for nid in machine.node_blocks if is_memory_node(machine, nid))


def is_memory_node(machine: Machine, nid: int) -> bool:
    """Whether a node has a memory block online."""
    return nid in machine.node_blocks and any(block.online for block in machine.node_blocks[nid].values)


@shared("blocks")
def has_normal_memory(machine: Machine) -> frozenset[int]:
    """N_NORMAL_MEMORY: nodes with online memory that is not only in ZONE_MOVABLE."""
    return frozenset(
        nid
        for nid, blocks in machine.node_blocks.items()
        if any(block.online and block.zone is not Zone.MOVABLE for _, _, block in blocks.runs())
    )


@shared("topology", "cpus_online")
def has_cpu(machine: Machine) -> frozenset[int]:
    """N_CPU: nodes with an online CPU."""
    return frozenset(cpu.node for cpu in machine.topology.cpus if cpu.id in machine.cpus_online)


def block_runs(machine: Machine, nid: int) -> Iterator[tuple[int, int, Block]]:
    """The runs of memory blocks that hold memory of a node, in order: costs what that node has, not the machine."""
    size = machine.topology.memory.block_size
    at = 0
    for part in machine.node_ram.get(nid, Ranges()):
        for start, end, block in machine.blocks.within(part.start // size, -(-part.end // size)):
            if end > at:
                yield max(start, at), end, block
                at = end


def distance(machine: Machine, a: int, b: int) -> int:
    """SLIT distance from node `a` to node `b`: 10 local, 20 where the firmware gives none."""
    order = machine.node_order
    if machine.topology.distances and a in order and b in order:
        return machine.topology.distances[order[a]][order[b]]
    return LOCAL_DISTANCE if a == b else REMOTE_DISTANCE


def pfn_to_nid(machine: Machine, pfn: int) -> int | None:
    """
    The node of a page frame, dax pages included (their target node), or None if
    there is no memory: O(log ranges).
    """
    return machine.node_of.get(pfn * PAGE_SIZE)
