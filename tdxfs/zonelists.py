"""In which order Linux tries nodes for a page: by distance, and by memory policy; compare mm/page_alloc.c.

Pages under an interleaving policy take turns among its nodes, by their number in what is interleaved: anonymous
memory counts from address 0, a file from its first byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

from attrs import frozen

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


@frozen
class Turn:
    """One turn of a policy: all of it, or, of those that interleave, what one node gives before the next does."""

    weight: int
    """How many pages in a row."""
    nodes: tuple[int, ...]
    """The nodes that are tried for each, first to last; a node that is not among them gives no page at all."""


def turns(machine: Machine, task: Task, policy: MemPolicy, local: int) -> tuple[Turn, ...]:
    """The turns that pages under `policy` take, for a task that runs on node `local`."""
    return take_turns(zonelists(machine), mems_allowed(machine, task), policy, local, partial(il_weight, machine))


def take_turns(
    lists: Mapping[int, tuple[int, ...]],
    allowed: frozenset[int],
    policy: MemPolicy,
    local: int,
    weight: Callable[[int], int],
) -> tuple[Turn, ...]:
    """The same from the zone lists, the nodes that the task may use, and the weights of weighted interleave."""

    def falling_back(start: int) -> list[int]:
        return [nid for nid in lists.get(start, tuple(sorted(allowed))) if nid in allowed]

    mine = policy.nodes & allowed
    near = local if policy.home is None else policy.home
    if policy.mode in INTERLEAVING and mine:
        weighted = policy.mode is Mode.WEIGHTED_INTERLEAVE
        return tuple(Turn(weight(nid) if weighted else 1, tuple(falling_back(nid))) for nid in sorted(mine))
    tried = falling_back(local)
    if policy.mode is Mode.BIND and mine:
        tried = [nid for nid in falling_back(near) if nid in mine]
    elif policy.mode is Mode.PREFERRED and mine:
        tried = falling_back(min(mine))
    elif policy.mode is Mode.PREFERRED_MANY and mine:
        tried = sorted(falling_back(near), key=lambda nid: nid not in mine)
    return (Turn(1, tuple(tried)),)


def il_weight(machine: Machine, nid: int) -> int:
    """How many pages in a row weighted interleave takes from a node, 1 to 255 (``get_il_weight``)."""
    return machine.weights.get(nid, 1)


def position(weights: Sequence[int], page: int) -> tuple[int, int]:
    """
    Whose turn it is at a page of what is interleaved, and how many pages of that turn come before it; turns of
    `weights` pages follow each other from page 0 on (``weighted_interleave_nid``).
    """
    before = page % sum(weights)
    for number, weight in enumerate(weights):
        if before < weight:
            return number, before
        before -= weight
    raise AssertionError(f"no weight is positive: {weights}")


def shares(weights: Sequence[int], first: int, count: int) -> list[int]:
    """How many of `count` pages from page `first` on fall to each of the turns."""
    rounds, left = divmod(count, sum(weights))
    found = [rounds * weight for weight in weights]
    number, before = position(weights, first)
    while left:
        here = min(weights[number] - before, left)
        found[number] += here
        left -= here
        number, before = (number + 1) % len(weights), 0
    return found


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
    machine: Machine, task: Task, policy: MemPolicy, local: int, first: int, pages: int, free: Callable[[int], int]
) -> dict[int, int]:
    """
    How many of `pages` pages each node gives, from page `first` of what is interleaved on; none gives more than it
    has `free`, and what fits nowhere stays with the first node tried.
    """
    taken: dict[int, int] = {}
    mine = turns(machine, task, policy, local)
    for turn, left in zip(mine, shares([turn.weight for turn in mine], first, pages), strict=True):
        for nid in turn.nodes:
            if not left:
                break
            here = min(left, max(free(nid) - taken.get(nid, 0), 0))
            if here:
                taken[nid] = taken.get(nid, 0) + here
                left -= here
        if left and turn.nodes:
            taken[turn.nodes[0]] = taken.get(turn.nodes[0], 0) + left
    return taken
