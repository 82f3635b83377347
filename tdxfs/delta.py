"""What two machines differ in: the objects that one transition changed, whichever it was.

What follows a change (names that the kernel has cached, uevents) derives from this, so that a
transition says only what the machine becomes. It costs what changed, and a look at the run tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from attrs import fields

from tdxfs import nodes
from tdxfs.model import Machine, Task
from tdxfs.ranges import RunMap

_OF_TASKS = frozenset({"tasks", "allocated", "generation", "conflict_numbers"})
"""Fields of a Machine that a change of its tasks alone changes."""
_SEEN = tuple(field.name for field in fields(Task) if field.name not in {"cpus", "resident", "interleaved"})
"""Fields of a Task that decide about names and conflicts."""
_NOT_OF_TASKS = tuple(field.name for field in fields(Machine) if field.name not in _OF_TASKS)


def differing(before: Collection[Any], after: Collection[Any]) -> Collection[Any]:
    """The keys that only one of two collections has."""
    if before is after:
        return ()
    if isinstance(before, RunMap) and isinstance(after, RunMap):
        return [
            number
            for start, end, was, now in before.differing(after)
            if (was is None) != (now is None)
            for number in range(start, end)
        ]
    return set(before) ^ set(after)


@lru_cache(maxsize=2)
def tasks_only(old: Machine, new: Machine) -> bool:
    """Whether nothing but tasks, and what they allocated, may differ."""
    return all(getattr(old, name) is getattr(new, name) for name in _NOT_OF_TASKS)


def unseen(old: Machine, new: Machine) -> bool:
    """
    Whether two machines that differ in tasks only differ in their CPUs and memory only: no name, no conflict, nothing
    that anybody can wait for.
    """
    if len(old.tasks) != len(new.tasks):
        return False
    for pid, now in new.tasks.items():
        was = old.tasks.get(pid)
        if was is not now and (was is None or any(getattr(was, name) != getattr(now, name) for name in _SEEN)):
            return False
    return True


@lru_cache(maxsize=2)
def blocks(old: Machine, new: Machine) -> tuple[int, ...]:
    """Ids of the memory blocks that were added or removed, or whose state differs."""
    if old.blocks is new.blocks:
        return ()
    return tuple(number for start, end, _, _ in old.blocks.differing(new.blocks) for number in range(start, end))


@lru_cache(maxsize=2)
def dax(old: Machine, new: Machine) -> tuple[tuple[int, int], ...]:
    """Keys of the dax devices that were added or removed, or whose state differs."""
    if old.dax is new.dax:
        return ()
    mine = [key for key, device in new.dax.items() if old.dax.get(key) != device]
    return tuple(sorted([*mine, *(key for key in old.dax if key not in new.dax)]))


def regions(old: Machine, new: Machine) -> frozenset[int]:
    """Ids of the dax regions that a device of theirs changed in, and of those that changed themselves."""
    found = frozenset(region for region, _ in dax(old, new))
    if old.topology is new.topology:
        return found
    both = {**old.regions, **new.regions}
    return found | {key for key in both if old.regions.get(key) is not new.regions.get(key)}


def cpus(old: Machine, new: Machine) -> tuple[int, ...]:
    """Ids of the CPUs that went online or offline."""
    return tuple(sorted(old.cpus_online ^ new.cpus_online))


def online_nodes(old: Machine, new: Machine) -> frozenset[int]:
    """Ids of the nodes that came or went."""
    if old.blocks is new.blocks and old.topology is new.topology:
        return frozenset()
    return nodes.online_nodes(old) ^ nodes.online_nodes(new)


def touched_nodes(old: Machine, new: Machine) -> Collection[int] | None:
    """Ids of the nodes with memory blocks or CPUs that changed; None, any node, if a node came or went."""
    if old.topology is not new.topology or online_nodes(old, new):
        return None
    return frozenset(_nodes_of_blocks(old, new)) | {new.cpus[cpu].node for cpu in cpus(old, new)}


def memory_nodes(old: Machine, new: Machine) -> Collection[int] | None:
    """Ids of the nodes that got or lost online memory, or whose memory became, or no longer is, all dax memory."""
    if old.topology is not new.topology:
        return None
    return [nid for nid in set(_nodes_of_blocks(old, new)) if _memory(old, nid) != _memory(new, nid)]


def _memory(machine: Machine, nid: int) -> tuple[bool, bool]:
    here = machine.node_blocks.get(nid, RunMap())
    return nodes.is_memory_node(machine, nid), all(block.dax for block in here.values)


def _nodes_of_blocks(old: Machine, new: Machine) -> Iterator[int]:
    for number in blocks(old, new):
        for machine in (old, new):
            block = machine.blocks.get(number)
            if block is not None:
                yield from block.nodes


def topology(old: Machine, new: Machine) -> Collection[int] | None:
    """For what only another topology changes: nothing, or None, anything."""
    return () if old.topology is new.topology else None


def tdx(old: Machine, new: Machine) -> Collection[int] | None:
    """For what only another boot changes: nothing, or None, anything."""
    return () if old.tdx is new.tdx else None
