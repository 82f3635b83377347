"""Memory blocks: online, offline, hot-add, hot-remove; compare drivers/base/memory.c, mm/memory_hotplug.c.

Nothing runs on the emulated machine, so all pages of a block can be moved away but those that never move:
a block cannot go offline if it holds what TDX or the BIOS owns (PAMTs, the first MiB), if the node's huge
pages would not fit any more, or if no kernel memory would be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tdxfs import counters
from tdxfs.errors import Busy, Exists, InvalidValue, NotPermitted
from tdxfs.kmsg import INFO, said
from tdxfs.model import Block, Machine, Why, Zone, changed
from tdxfs.policy import Hotplug
from tdxfs.ranges import Range, Ranges, RunMap
from tdxfs.transitions.weights import with_bandwidths
from tdxfs.zones import spans, zone_for

ONLINE_TYPES = ("online", "online_kernel", "online_movable")
POLICIES = ("offline", *ONLINE_TYPES)
"""What ``auto_online_blocks`` may say."""


def set_auto_online(machine: Machine, word: str) -> Machine:
    """What becomes of hot-added blocks from now on; InvalidValue for an unknown word."""
    if word not in POLICIES:
        raise InvalidValue(f"{word!r} is not one of {', '.join(POLICIES)}")
    return changed(machine, auto_online=word)


def set_block_state(machine: Machine, block_id: int, word: str) -> Machine:
    """
    What writing `word` to ``memoryN/state`` does (``state_store``): InvalidValue for an unknown word and for the
    state the block is in, else what `online_block` and `offline_block` refuse.
    """
    if word in ONLINE_TYPES:
        return online_block(machine, block_id, word)
    if word == "offline":
        return offline_block(machine, block_id)
    raise InvalidValue(f"{word!r} is not one of {', '.join(POLICIES)}")


def set_block_online(machine: Machine, block_id: int, online: bool) -> Machine:
    """What writing to ``memoryN/online`` does: as `set_block_state`, but the state it is in succeeds."""
    if _block(machine, block_id).online is online:
        return machine
    return online_block(machine, block_id, "online") if online else offline_block(machine, block_id)


def online_block(machine: Machine, block_id: int, word: str) -> Machine:
    """
    Bring a memory block online as the online type `word` says: InvalidValue if it is online, NotPermitted
    where TDX vetoes it (``tdx_memory_notifier``), which prints nothing.
    """
    block = _block(machine, block_id)
    if block.online:
        raise InvalidValue(f"memory{block_id} is online")
    if vetoed(machine, block_range(machine, block_id)):
        raise NotPermitted(f"memory{block_id} is not TDX memory")
    return _online(machine, block_id, block_id + 1, lambda _: word)


def offline_block(machine: Machine, block_id: int) -> Machine:
    """Take a memory block offline: InvalidValue if it is offline, else what `offline_blocks` refuses."""
    if not _block(machine, block_id).online:
        raise InvalidValue(f"memory{block_id} is offline")
    return offline_blocks(machine, block_id, block_id + 1)


def offline_blocks(machine: Machine, first: int, end: int) -> Machine:
    """
    Take the online blocks from `first` to before `end` offline, all or none of them (``offline_pages``):
    InvalidValue for one that has holes or lies in several zones, Busy for one with pages that cannot move.
    """
    size = machine.topology.memory.block_size
    blocks = machine.blocks
    for start, stop, block in [run for run in blocks.within(first, end) if run[2].online]:
        memory = Range(start * size, stop * size)
        there = sum(high - low for low, high, _ in machine.ram.within(memory.start, memory.end))
        if block.zone is None or there != memory.size:
            raise InvalidValue(f"{_name(start, stop)} lies in several zones, or has holes")
        if any(machine.tdx.owned.within(memory)):
            raise Busy(f"{_name(start, stop)} holds pages that cannot move")
        blocks = blocks.assign(start, stop, Block(block.nodes, False, dax=block.dax))
    if blocks is machine.blocks:
        return machine
    after = _with_blocks(machine, blocks)
    if not any(block.online and block.zone is not Zone.MOVABLE for _, _, block in blocks.runs()):
        raise Busy(f"{_name(first, end)} is the last memory of the kernel")
    for nid in {nid for _, _, block in machine.blocks.within(first, end) for nid in block.nodes}:
        if counters.free_kib(after, nid) < 0:
            raise Busy(f"the huge pages of {_name(first, end)} fit nowhere else on node {nid}")
    return after


def fixed_blocks(machine: Machine, nid: int) -> Ranges:
    """Numbers of a node's online blocks that `offline_blocks` never takes offline, whatever else is online."""
    size = machine.topology.memory.block_size
    online = [run for run in machine.node_blocks[nid].runs() if run[2].online]
    zoneless = [Range(start, end) for start, end, block in online if block.zone is None]
    ends = (edge for start, end, _ in machine.ram.runs() for edge in (start, end) if edge % size)
    holes = [Range(edge // size, edge // size + 1) for edge in ends]
    owned = [Range(part.start // size, -(-part.end // size)) for part in machine.tdx.owned]
    return Ranges.of((*zoneless, *holes, *owned)) & Ranges.of(Range(start, end) for start, end, _ in online)


def add_memory(
    machine: Machine, nid: int, memory: Range, how: Callable[[int], str] | None = None, *, dax: bool = False
) -> Machine:
    """
    Hot-add whole blocks to a node (``add_memory_resource``); those that `how` (None: ``auto_online_blocks``) says
    go online, unless TDX vetoes it. Exists if there is memory already. InvalidValue under hotplug=reject-range if
    it is not TDX memory; a line of the log says so.
    """
    if any(machine.ram.within(memory.start, memory.end)):
        raise Exists(f"there is memory in {memory}")
    if machine.policies.hotplug is Hotplug.REJECT_RANGE and vetoed(machine, memory):
        text = f"Reject hot-adding memory range: {memory.start:#x}-{memory.end:#x} for TDX compatibility."
        raise InvalidValue(f"{memory} is not TDX memory").leaving(said(machine, INFO, f"virt/tdx: {text}"))
    size = machine.topology.memory.block_size
    first, end = memory.start // size, memory.end // size
    machine = changed(machine, ram=machine.ram.assign(memory.start, memory.end, nid))
    machine = _with_blocks(machine, machine.blocks.assign(first, end, Block((nid,), False, dax=dax)))
    word = machine.auto_online
    return _online(machine, first, end, how or (lambda _: word))


def remove_memory(machine: Machine, memory: Range) -> Machine:
    """Hot-remove whole blocks (``try_remove_memory``): Busy unless all of them are offline."""
    size = machine.topology.memory.block_size
    first, end = memory.start // size, memory.end // size
    if any(block.online for _, _, block in machine.blocks.within(first, end)):
        raise Busy(f"memory blocks of {memory} are online")
    machine = changed(machine, ram=machine.ram.remove(memory.start, memory.end))
    return _with_blocks(machine, machine.blocks.remove(first, end))


def offline_and_remove(machine: Machine, memories: Iterable[Range]) -> Machine:
    """Take blocks offline and remove them, all or none of them (``offline_and_remove_memory_ranges``)."""
    size = machine.topology.memory.block_size
    for memory in memories:
        machine = offline_blocks(machine, memory.start // size, memory.end // size)
        machine = remove_memory(machine, memory)
    return machine


def vetoed(machine: Machine, memory: Range) -> bool:
    """Whether TDX keeps `memory` from going online."""
    if not machine.tdx.enabled or machine.policies.hotplug is Hotplug.ALLOW:
        return False
    at = memory.start
    for start, end, why in machine.tdx_memory.within(memory.start, memory.end):
        kept = why is Why.RESERVED and not Ranges((Range(start, end),)) - machine.tdx.owned
        if start != at or (why is not Why.CAPABLE and not kept):
            return True
        at = end
    return at != memory.end


def block_range(machine: Machine, block_id: int) -> Range:
    """The addresses of a memory block."""
    size = machine.topology.memory.block_size
    return Range(block_id * size, (block_id + 1) * size)


def _block(machine: Machine, block_id: int) -> Block:
    block = machine.blocks.get(block_id)
    assert block is not None, f"no memory{block_id}"
    return block


def _name(first: int, end: int) -> str:
    return f"memory{first}" if end == first + 1 else f"memory{first} to memory{end - 1}"


def _online(machine: Machine, first: int, end: int, how: Callable[[int], str]) -> Machine:
    # one block after the other, so that each sees the zones as those before it left them
    block = _block(machine, first)
    zones = spans(machine, block.nodes[0])
    runs = []
    for number in range(first, end):
        word, memory = how(number), block_range(machine, number)
        if word == "offline" or vetoed(machine, memory):
            continue
        zone = zone_for(word, zones, memory)
        span = zones.get(zone, memory)
        zones[zone] = Range(min(span.start, memory.start), max(span.end, memory.end))
        runs.append((number, number + 1, Block(block.nodes, True, zone, block.dax)))
    blocks = machine.blocks
    for start, stop, online in RunMap.of(runs).runs():
        blocks = blocks.assign(start, stop, online)
    return _with_blocks(machine, blocks)


def _with_blocks(machine: Machine, blocks: RunMap[Block]) -> Machine:
    # what was recorded of the memory is no longer true
    after = changed(machine, blocks=blocks, records=_without(machine, "iomem", "meminfo", "zoneinfo"))
    return with_bandwidths(after, machine)


def _without(machine: Machine, *names: str) -> dict[str, str]:
    return {name: text for name, text in machine.records.items() if name not in names}
