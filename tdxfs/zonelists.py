"""In which order Linux tries nodes for a page: by distance, and by memory policy; compare mm/page_alloc.c."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from tdxfs import nodes
from tdxfs.mempolicy import INTERLEAVING, mems_allowed
from tdxfs.model import By, Machine, MemPolicy, Mode, Task, shared


@shared("topology", "blocks", "cpus_online")
def zonelists(machine: Machine) -> dict[int, tuple[int, ...]]:
    """
    Online node -> the nodes with memory in the order in which its allocations fall back (``build_zonelists``): by
    distance, nodes without CPUs before those with, the load of being first spread over equals.
    """
    memory, with_cpus, online = nodes.has_memory(machine), nodes.has_cpu(machine), nodes.online_nodes(machine)
    return _zonelists(By(machine, machine.topology.distances), memory, with_cpus, frozenset(online))


@lru_cache(maxsize=8)
def _zonelists(
    by_distances: By, memory: frozenset[int], with_cpus: frozenset[int], online: frozenset[int]
) -> dict[int, tuple[int, ...]]:
    machine = by_distances.machine
    load: dict[int, int] = {}
    lists = {}
    for local in sorted(online):

        def cost(nid: int, local: int = local) -> tuple[int, int, int]:
            return nodes.distance(machine, local, nid) + (nid < local) + (nid in with_cpus), load.get(nid, 0), nid

        # the load of a node changes when it is taken, and then it is out of this list: sorting once is enough
        order = [local] if local in memory else []
        before = local
        for nid in sorted(memory - {local}, key=cost):
            if nodes.distance(machine, local, nid) != nodes.distance(machine, local, before):
                load[nid] = load.get(nid, 0) + 1
            order.append(nid)
            before = nid
        lists[local] = tuple(order)
    return lists


def order(machine: Machine, task: Task, policy: MemPolicy, local: int, page: int = 0) -> tuple[int, ...]:
    """
    The nodes that the allocator tries for a page under `policy`, first to last, for a task that runs on node
    `local`; `page` is which page of an interleaved range it is. A node that is not in it gives no page at all.
    """
    return tries(zonelists(machine), mems_allowed(machine, task), policy, local, page)


def tries(
    lists: Mapping[int, tuple[int, ...]], allowed: frozenset[int], policy: MemPolicy, local: int, page: int = 0
) -> tuple[int, ...]:
    """The same from the zone lists and the nodes that the task may use."""

    def falling_back(start: int) -> list[int]:
        return [nid for nid in lists.get(start, tuple(sorted(allowed))) if nid in allowed]

    mine = policy.nodes & allowed
    near = local if policy.home is None else policy.home
    if policy.mode is Mode.BIND and mine:
        return tuple(nid for nid in falling_back(near) if nid in mine)
    if policy.mode is Mode.PREFERRED and mine:
        return tuple(falling_back(min(mine)))
    if policy.mode is Mode.PREFERRED_MANY and mine:
        every = falling_back(near)
        return tuple(sorted(every, key=lambda nid: nid not in mine))
    if policy.mode in INTERLEAVING and mine:
        turns = sorted(mine)  # weights are 1 unless the firmware gives bandwidths
        return tuple(falling_back(turns[page % len(turns)]))
    return tuple(falling_back(local))


def il_weight(machine: Machine, nid: int) -> int:
    """How many pages in a row weighted interleave takes from a node, 1 to 255 (``get_il_weight``)."""
    return machine.weights.get(nid, 1)


def reachable(machine: Machine, task: Task, policy: MemPolicy) -> frozenset[int]:
    """
    The nodes that a page under `policy` can come from, wherever the task runs. Only bind keeps pages off a node:
    every other mode falls back to all nodes that the task may use.
    """
    allowed = mems_allowed(machine, task)
    return (policy.nodes & allowed) or allowed if policy.mode is Mode.BIND else allowed


def local_node(machine: Machine, task: Task) -> int:
    """The node that a task is taken to run on: that of the first online CPU that it may use."""
    cpus = machine.cpus_online if task.cpus is None else (task.cpus & machine.cpus_online) or machine.cpus_online
    if not cpus:
        return min(nodes.online_nodes(machine))
    return machine.cpus[min(cpus)].node


def place(
    machine: Machine, task: Task, policy: MemPolicy, local: int, pages: int, free: Callable[[int], int]
) -> dict[int, int]:
    """
    How many of `pages` pages each node gives, none more than it has `free`; what fits nowhere stays with the
    first node tried.
    """
    turns = [order(machine, task, policy, local, page) for page in range(_turns(policy))]
    taken: dict[int, int] = {}
    for number, tried in enumerate(turns):
        left = pages // len(turns) + (number < pages % len(turns))
        for nid in tried:
            if not left:
                break
            here = min(left, max(free(nid) - taken.get(nid, 0), 0))
            if here:
                taken[nid] = taken.get(nid, 0) + here
                left -= here
        if left and tried:
            taken[tried[0]] = taken.get(tried[0], 0) + left
    return taken


def _turns(policy: MemPolicy) -> int:
    return max(len(policy.nodes), 1) if policy.mode in INTERLEAVING else 1
