"""Memory slots: KVM's rules for them, and what can be known of their backing; compare virt/kvm/kvm_main.c.

Everything here is about one guest of one machine and changes neither. Numbers are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, frozen

from tdxfs import allocator
from tdxfs.errors import Exists, InvalidValue
from tdxfs.mempolicy import format_policy
from tdxfs.model import (
    PAGE_SIZE,
    Backs,
    Driver,
    Frames,
    Guest,
    Machine,
    MemPolicy,
    Memslot,
    Stretch,
    Task,
    Why,
)
from tdxfs.nodes import pfn_to_nid
from tdxfs.ranges import Range, Ranges, RunMap

LOG_DIRTY_PAGES, READONLY, GUEST_MEMFD = 1, 2, 4
"""``KVM_MEM_*`` flags of a slot."""
USER_MEM_SLOTS = 32764
"""KVM_USER_MEM_SLOTS of x86: SHRT_MAX less the three that KVM keeps."""
MAX_PAGES = (1 << 31) - 1
"""KVM_MEM_MAX_NR_PAGES."""
MAX_GPA = 1 << 52
USER_END = (1 << 47) - PAGE_SIZE
"""TASK_SIZE_MAX: where user addresses end."""
OWNED, POLICY, MAPPING = "owned", "policy", "mapping"
"""Kinds of `Record` beside those of `Why`."""


def is_aligned(*values: int) -> bool:
    """Whether all values are multiples of a page."""
    return all(value % PAGE_SIZE == 0 for value in values)


def changed(guest: Guest, wanted: Memslot) -> Guest:
    """
    The guest after ``KVM_SET_USER_MEMORY_REGION``: a slot created, moved, flagged or (size 0) deleted.
    InvalidValue and Exists as ``__kvm_set_memory_region()``; a TD has no read-only memory.
    """
    _check(wanted)
    old = guest.slots.get(wanted.id)
    if wanted.size == 0:
        if old is None:
            raise InvalidValue(f"slot {wanted.id} is empty")
        return evolve(guest, slots=guest.slots.delete(wanted.id), layout=_without(guest, old))
    if wanted.gpa + wanted.size > MAX_GPA:
        raise InvalidValue("the slot ends beyond the guest's physical address space")
    if old is not None:
        if (wanted.flags | old.flags) & GUEST_MEMFD or (wanted.size, wanted.address) != (old.size, old.address):
            raise InvalidValue(f"slot {wanted.id} exists: its size and its address cannot change")
        kept = old if wanted.gpa == old.gpa else evolve(old, touched=Ranges(), pages=Ranges(), resident=())
        wanted = evolve(kept, gpa=wanted.gpa, flags=wanted.flags)
    layout = guest.layout if old is None else _without(guest, old)
    there = wanted.guest_range
    for start, end, other in layout.within(there.start, there.end):
        raise Exists(f"slot {other} has guest memory {Range(start, end)}")
    layout = layout.assign(there.start, there.end, wanted.id)
    return evolve(guest, slots=guest.slots.set(wanted.id, wanted), layout=layout)


def _without(guest: Guest, slot: Memslot) -> RunMap[int]:
    return guest.layout.remove(slot.guest_range.start, slot.guest_range.end)


def _check(slot: Memslot) -> None:
    if slot.flags & ~(LOG_DIRTY_PAGES | GUEST_MEMFD) or slot.flags == LOG_DIRTY_PAGES | GUEST_MEMFD:
        raise InvalidValue(f"flags {slot.flags:#x} are not those of a TD's slot")
    if not is_aligned(slot.size, slot.gpa, slot.address):
        raise InvalidValue("size, guest address and user address must be multiples of a page")
    if slot.address + slot.size > USER_END or slot.gpa + slot.size >= 1 << 64:
        raise InvalidValue("the slot does not fit the address space")
    if not 0 <= slot.id < USER_MEM_SLOTS:
        raise InvalidValue(f"slot {slot.id:#x}: a TD has one address space with {USER_MEM_SLOTS} slots")
    if slot.size // PAGE_SIZE > MAX_PAGES:
        raise InvalidValue("the slot has too many pages")


def check_binding(guest: Guest, wanted: Memslot) -> None:
    """InvalidValue unless a new slot's guest_memfd, if it has one, is the guest's and free there (kvm_gmem_bind)."""
    for stretch in wanted.backing:
        if stretch.kind is not Backs.GUEST_MEMFD or not stretch.object:
            continue
        memfd = guest.memfds.get(stretch.object)
        if memfd is None:
            raise InvalidValue(f"{stretch.object} is no guest_memfd of guest {guest.name}")
        there = Range(stretch.offset, stretch.offset + stretch.range.size)
        if there.end > memfd.size:
            raise InvalidValue(f"the guest_memfd has {memfd.size} bytes")
        for slot in guest.slots.values():
            for other in slot.backing:
                taken = Range(other.offset, other.offset + other.range.size)
                if other.object == stretch.object and taken.overlaps(there):
                    raise InvalidValue(f"slot {slot.id} has {taken} of the guest_memfd")


def task_of(machine: Machine, guest: Guest) -> Task:
    """The process of a guest; one that the machine does not know of has no policy."""
    return machine.tasks.get(guest.pid) or Task(guest.pid)


def slot_at(guest: Guest, gpa: int) -> Memslot | None:
    """The slot that holds a guest physical address."""
    number = guest.layout.get(gpa)
    return None if number is None else guest.slots[number]


# --- what is behind a slot ------------------------------------------------------------


@frozen
class Piece:
    """A part of a slot whose pages are all known (`hpa`), or all come from one `policy`, or are not there."""

    offsets: Range
    """Offsets from the slot's first byte."""
    stretch: Stretch | None
    """None: nothing is mapped there."""
    hpa: int | None = None
    """Where its first page is in host memory, the others following it; None: not allocated yet."""
    policy: MemPolicy | None = None
    """Where the allocator takes the pages from."""


def pieces(machine: Machine, guest: Guest, slot: Memslot, window: Range) -> Iterator[Piece]:
    """What is behind the offsets `window` of a slot, in order, without gaps."""
    at = window.start
    for stretch in slot.backing:
        start, end = max(stretch.range.start, window.start), min(stretch.range.end, window.end)
        if start >= end:
            continue
        if at < start:
            yield Piece(Range(at, start), None)
        if stretch.kind.of_a_device:
            yield from _of_device(machine, stretch, Range(start, end))
        else:
            yield from _of_allocator(machine, guest, slot, stretch, Range(start, end))
        at = end
    if at < window.end:
        yield Piece(Range(at, window.end), None)


def _of_device(machine: Machine, stretch: Stretch, window: Range) -> Iterator[Piece]:
    at = window.start
    base = stretch.range.start - stretch.offset  # the slot offset at which the object itself begins
    for memory in object_memory(machine, stretch):
        start, end = max(at, base), min(window.end, base + memory.size)
        if start < end:
            yield Piece(Range(start, end), stretch, memory.start + start - base)
            at = end
        base += memory.size
    if at < window.end:
        yield Piece(Range(at, window.end), stretch)


def object_memory(machine: Machine, stretch: Stretch) -> tuple[Range, ...]:
    """Host physical memory of a device, in the order in which it is mapped; nothing if it cannot be mapped now."""
    if stretch.kind is Backs.DAX:
        device = next((one for one in machine.dax.values() if one.name == stretch.object), None)
        return device.mappings if device is not None and device.driver is Driver.DEVICE_DAX else ()
    address, _, resource = stretch.object.partition("/")
    function = machine.pci.get(address)
    bars = function.bars if function else ()
    return tuple(bar.range for bar in bars if f"resource{bar.index}" == resource)


def _of_allocator(machine: Machine, guest: Guest, slot: Memslot, stretch: Stretch, window: Range) -> Iterator[Piece]:
    at = window.start
    for frames in (*_within(slot.resident, window), Frames(window.end, 0, 0)):
        task = task_of(machine, guest)
        if at < frames.offset and stretch.kind is not Backs.PAGECACHE:
            policies, base = _policies(task, guest, slot, stretch)
            for start, end, policy in policies.within(at - base, frames.offset - base):
                start, end = start + base, end + base
                if at < start:
                    yield Piece(Range(at, start), stretch, policy=task.policy)
                yield Piece(Range(start, end), stretch, policy=policy)
                at = end
        if at < frames.offset:
            yield Piece(Range(at, frames.offset), stretch, policy=task.policy)
        if frames.size:
            yield Piece(Range(frames.offset, frames.offset + frames.size), stretch, frames.hpa)
        at = frames.offset + frames.size


def _policies(task: Task, guest: Guest, slot: Memslot, stretch: Stretch) -> tuple[RunMap[MemPolicy], int]:
    # the policies of a mapping, or of a guest_memfd, which has its own; and the slot offset at which they begin
    memfd = guest.memfds.get(stretch.object)
    if memfd is not None:
        return memfd.policies, stretch.range.start - stretch.offset
    return task.mappings, -slot.address


def _within(frames: tuple[Frames, ...], window: Range) -> Iterator[Frames]:
    for one in frames:
        start, end = max(one.offset, window.start), min(one.offset + one.size, window.end)
        if start < end:
            yield Frames(start, end - start, one.hpa + start - one.offset)


# --- what is wrong with it ------------------------------------------------------------


@frozen
class Misfit:
    """The first thing in a slot that cannot back, or need not back, a TDX guest."""

    kind: str
    """A `Why` or one of the words above."""
    reason: str
    offset: int
    stretch: Stretch | None = None
    hpa: int | None = None
    node: int | None = None
    dax: str = ""
    policy: str = ""


def judge_page(machine: Machine, guest: Guest, piece: Piece) -> Misfit | None:
    """The first page of a piece with known pages that a TD of `guest` cannot have."""
    assert piece.hpa is not None
    memory = Range(piece.hpa, piece.hpa + piece.offsets.size)
    found = allocator.first_incapable(machine, memory)
    mine = piece.stretch is not None and not piece.stretch.kind.of_a_device
    taken = None if mine else next(machine.guest_pages.within(memory.start, memory.end), None)
    if taken is not None and (found is None or taken[0] < found):
        return _page(machine, piece, taken[0], OWNED, f"guest {taken[2]} has it already")
    if found is None:
        return None
    return misfit_at(machine, piece, found)


def misfit_at(machine: Machine, piece: Piece, hpa: int, offset: int | None = None) -> Misfit:
    """Why the page at `hpa` cannot back a TDX guest; `offset` is for pages that a policy picked."""
    why = machine.tdx_memory.get(hpa) or Why.NOT_CONVERTIBLE
    return _page(machine, piece, hpa, why.value, _EXPLAINED[why], offset)


_EXPLAINED = {
    Why.NOT_CONVERTIBLE: "it is outside every CMR: the platform cannot encrypt it",
    Why.NOT_COVERED: "it is convertible, but no TDMR covers it",
    Why.RESERVED: "it is a reserved area of a TDMR",
    Why.CAPABLE: "it is capable",
}


def _page(machine: Machine, piece: Piece, hpa: int, kind: str, why: str, offset: int | None = None) -> Misfit:
    nid = pfn_to_nid(machine, hpa // PAGE_SIZE)
    stretch = piece.stretch
    owner = stretch.object if stretch and stretch.kind.of_a_device else "" if nid is None else f"node {nid}"
    of = f" of {owner}" if owner else ""
    if offset is None:
        assert piece.hpa is not None
        offset = piece.offsets.start + hpa - piece.hpa
    key = machine.dax_at.get(hpa)
    return Misfit(
        kind,
        f"Host page {hpa:#x}{of} cannot back a TDX guest: {why}.",
        offset,
        stretch,
        hpa,
        nid,
        machine.dax[key].name if key else "",
        format_policy(piece.policy) if piece.policy else "",
    )


def unfit(machine: Machine, guest: Guest, slot: Memslot, *, pledge: bool) -> Misfit | None:
    """
    What can be known to be wrong with a slot before anybody touches it: pages of devices, and, for a `pledge`,
    pages that are allocated already, every page that a policy could bring, and what is not mapped at all.
    """
    for piece in pieces(machine, guest, slot, Range(0, slot.size)):
        device = piece.stretch is not None and piece.stretch.kind.of_a_device
        found = None
        if piece.hpa is not None and (device or pledge):
            todo = [piece] if not pledge else list(_untouched(piece, slot.touched))
            found = next((bad for part in todo if (bad := judge_page(machine, guest, part))), None)
            if found is None and pledge and device:
                found = _claimed(machine, guest, slot, piece)
        elif pledge and not slot.touched.covers(piece.offsets):
            found = _promised(machine, guest, piece)
        if found is not None:
            return found
    return None


def _claimed(machine: Machine, guest: Guest, slot: Memslot, piece: Piece) -> Misfit | None:
    # pages of a device that were promised to another slot, which may touch them first
    assert piece.hpa is not None
    memory = Range(piece.hpa, piece.hpa + piece.offsets.size)
    for other in machine.guests.values():
        for theirs in other.slots.values() if other.open else ():
            if theirs.pledged and (other.name, theirs.id) != (guest.name, slot.id):
                for part in pieces(machine, other, theirs, Range(0, theirs.size)):
                    if part.hpa is not None and memory.overlaps(Range(part.hpa, part.hpa + part.offsets.size)):
                        hpa = max(memory.start, part.hpa)
                        return _page(machine, piece, hpa, OWNED, f"guest {other.name} was promised it")
    return None


def _untouched(piece: Piece, touched: Ranges) -> Iterator[Piece]:
    assert piece.hpa is not None
    for part in Ranges((piece.offsets,)) - touched:
        yield evolve(piece, offsets=part, hpa=piece.hpa + part.start - piece.offsets.start)


def _promised(machine: Machine, guest: Guest, piece: Piece) -> Misfit | None:
    if piece.policy is None:
        reason = "Nothing is mapped there: nobody can promise what will be."
        return Misfit(MAPPING, reason, piece.offsets.start, piece.stretch)
    memory = allocator.reachable_memory(machine, task_of(machine, guest), piece.policy)
    lost = memory.aligned_in(PAGE_SIZE) - allocator.capable_parts(machine, memory)
    if not lost:
        return None
    hpa = lost.parts[0].start
    nid = pfn_to_nid(machine, hpa // PAGE_SIZE)
    why = machine.tdx_memory.get(hpa) or Why.NOT_CONVERTIBLE
    text = format_policy(piece.policy)
    reason = f"Policy {text} can reach node {nid}, whose page {hpa:#x} cannot back a TDX guest: {_EXPLAINED[why]}."
    return Misfit(POLICY, reason, piece.offsets.start, piece.stretch, hpa, nid, policy=text)
