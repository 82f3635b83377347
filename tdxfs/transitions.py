"""What userspace can change: functions from Machine to Machine, or a Refusal with the kernel's errno.

Compare drivers/base/memory.c and mm/memory_hotplug.c.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve

from tdxfs.errors import InvalidValue, NotPermitted
from tdxfs.model import Machine, Why, Zone
from tdxfs.policy import Hotplug, parse_axis
from tdxfs.ranges import Range

ONLINE_TYPES = ("online", "online_kernel", "online_movable")


def set_block_state(machine: Machine, block_id: int, word: str) -> Machine:
    """
    What writing `word` to ``memoryN/state`` does (``state_store``): InvalidValue for an unknown word, for the state
    the block is in and for offlining a block of several zones; NotPermitted where TDX vetoes going online.
    """
    if word in ONLINE_TYPES:
        return online_block(machine, block_id, word)
    if word == "offline":
        return offline_block(machine, block_id)
    raise InvalidValue(f"{word!r} is not online, online_kernel, online_movable or offline")


def online_block(machine: Machine, block_id: int, word: str) -> Machine:
    """Bring a memory block online as the online type `word` says."""
    block = machine.blocks.get(block_id)
    assert block is not None
    if block.online:
        raise InvalidValue(f"memory{block_id} is online")
    if machine.tdx.enabled and machine.policies.hotplug is not Hotplug.ALLOW and not _is_tdx_memory(machine, block_id):
        raise NotPermitted(f"memory{block_id} is not TDX memory")
    zone = Zone.MOVABLE if word == "online_movable" else block.zone
    return evolve(machine, blocks=machine.blocks.assign(block_id, block_id + 1, evolve(block, online=True, zone=zone)))


def offline_block(machine: Machine, block_id: int) -> Machine:
    """Take a memory block offline."""
    block = machine.blocks.get(block_id)
    assert block is not None
    if not block.online:
        raise InvalidValue(f"memory{block_id} is offline")
    if block.zone is None:
        raise InvalidValue(f"memory{block_id} lies in several zones")
    return evolve(machine, blocks=machine.blocks.assign(block_id, block_id + 1, evolve(block, online=False)))


def set_policy(machine: Machine, axis: str, word: str) -> Machine:
    """What writing `word` to ``policy/<axis>`` does: InvalidValue if the axis has no such value."""
    try:
        change: dict[str, Any] = {axis: parse_axis(axis, word)}
    except ValueError as error:
        raise InvalidValue(str(error)) from error
    return evolve(machine, policies=evolve(machine.policies, **change))


def _is_tdx_memory(machine: Machine, block_id: int) -> bool:
    # tdx_memory_notifier(): a block must lie inside TDX memory
    size = machine.topology.memory.block_size
    block = Range(block_id * size, (block_id + 1) * size)
    return all(why is Why.CAPABLE for _, _, why in machine.tdx_memory.within(block.start, block.end))
