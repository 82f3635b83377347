"""TDX guests: functions from Machine to Machine, or a Refusal with KVM's errno; compare arch/x86/kvm/vmx/tdx.c.

A guest gets memory slots, and pages as it touches them. A page that cannot back it makes a SEAMCALL fail:
the guest is dead. What was impossible, and what to do next time, stays behind in a `Record` (T7).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from attrs import evolve

from tdxfs import allocator, memslots, placement
from tdxfs.errors import (
    BadAddress,
    Exists,
    InputOutput,
    InvalidValue,
    NoEntry,
    NoMemory,
    NoSpace,
    Refusal,
)
from tdxfs.kmsg import ERR, WARN, said
from tdxfs.mempolicy import format_policy
from tdxfs.memslots import Misfit, Piece, is_aligned
from tdxfs.model import (
    PAGE_SIZE,
    Backs,
    Frames,
    Guest,
    Life,
    Machine,
    Memfd,
    MemPolicy,
    Memslot,
    Mode,
    Record,
    Stretch,
    changed,
)
from tdxfs.policy import Report, Validate
from tdxfs.ranges import Range, Ranges

ADDR_RANGE_ERROR = 0xC000010100000008
"""TDX_OPERAND_ADDR_RANGE_ERROR, operand R8: the page is in no TDMR."""
METADATA_INCORRECT = 0xC000030000000008
"""TDX_PAGE_METADATA_INCORRECT, operand R8: the page is reserved, or some TD has it."""
NOTHING = Ranges()
REFUSALS_KEPT = 16
COMMAND_LENGTH = 512


class Leaf(Enum):
    """The SEAMCALL that gives a page to a TD."""

    ADD = "TDH_MEM_PAGE_ADD"
    AUG = "TDH_MEM_PAGE_AUG"


def running(machine: Machine, name: str) -> Guest:
    """A guest that can be spoken to: NoEntry if it is not there, InputOutput if it is dead (``vm_dead``)."""
    guest = machine.guests.get(name)
    if guest is None or not guest.open:
        raise NoEntry(f"no guest {name}")
    if guest.life is Life.DEAD:
        raise InputOutput(f"guest {name} is dead")
    return guest


def _put(machine: Machine, guest: Guest) -> Machine:
    return changed(machine, guests=machine.guests.set(guest.name, guest))


def _put_slot(machine: Machine, name: str, slot: Memslot) -> Machine:
    guest = machine.guests[name]
    return _put(machine, evolve(guest, slots=guest.slots.set(slot.id, slot)))


# --- the life of a guest --------------------------------------------------------------


def create(machine: Machine, name: str, command: str = "") -> Machine:
    """
    A new TD of the process that `name` (``PID-N``) begins with: InvalidValue while TDX is disabled (an
    unsupported VM type), NoSpace without a free KeyID, Exists if there is one of that name.
    """
    platform = machine.topology.tdx
    if not machine.tdx.enabled or platform is None:
        raise InvalidValue("TDX is disabled: TDs are no supported type of VM")
    if name in machine.guests:
        raise Exists(f"there is a guest {name}")
    if sum(guest.open for guest in machine.guests.values()) >= platform.keyids - 1:
        raise NoSpace("every private KeyID is in use")
    return _put(machine, Guest(name, int(name.partition("-")[0]), command[:COMMAND_LENGTH]))


def close(machine: Machine, name: str) -> Machine:
    """The last descriptor of a guest is closed: its memory is free again, its records stay up to the limit."""
    guest = machine.guests.get(name)
    if guest is None or not guest.open:
        raise NoEntry(f"no guest {name}")
    slots = guest.slots
    for slot in guest.slots.values():
        slots = slots.set(slot.id, evolve(slot, pages=Ranges(), resident=()))
    life = Life.DEAD if guest.life is Life.DEAD else Life.ENDED
    machine = _put(machine, evolve(guest, open=False, life=life, slots=slots))
    return set_limit(changed(machine, guests_ended=(*machine.guests_ended, name)), machine.guest_limit)


def set_limit(machine: Machine, limit: int) -> Machine:
    """Remember `limit` guests that ended, the last ones; InvalidValue for a negative limit."""
    if limit < 0:
        raise InvalidValue(f"{limit} guests cannot be remembered")
    ended = machine.guests_ended
    forgotten = ended[: max(len(ended) - limit, 0)]
    guests = machine.guests
    for name in forgotten:
        guests = guests.delete(name)
    return changed(machine, guests=guests, guests_ended=ended[len(forgotten) :], guest_limit=limit)


def set_attributes(machine: Machine, name: str, gpa: int, size: int, *, private: bool) -> Machine:
    """``KVM_SET_MEMORY_ATTRIBUTES``: InvalidValue unless the range is of whole pages and not empty."""
    guest = running(machine, name)
    if not is_aligned(gpa, size) or not size or gpa + size >= 1 << 64:
        raise InvalidValue("the range must be of whole pages, and not empty")
    there = Ranges((Range(gpa, gpa + size),))
    return _put(machine, evolve(guest, private=guest.private | there if private else guest.private - there))


def finalize(machine: Machine, name: str) -> Machine:
    """``KVM_TDX_FINALIZE_VM``: the guest gets no more initial memory; InvalidValue the second time."""
    guest = running(machine, name)
    if guest.finalized:
        raise InvalidValue(f"guest {name} is finalized")
    return _put(machine, evolve(guest, finalized=True))


def create_memfd(machine: Machine, name: str, file: str, size: int) -> Machine:
    """``KVM_CREATE_GUEST_MEMFD``: InvalidValue unless `size` is of whole pages and not 0; Exists."""
    guest = running(machine, name)
    if not size or not is_aligned(size) or size >= 1 << 63:
        raise InvalidValue("the size must be of whole pages, and not 0")
    if file in guest.memfds:
        raise Exists(f"guest {name} has a guest_memfd {file}")
    return _put(machine, evolve(guest, memfds=guest.memfds.set(file, Memfd(size))))


def bind_memfd(machine: Machine, name: str, file: str, where: Range, policy: MemPolicy) -> Machine:
    """mbind() of a mapping of a guest_memfd: `where` are offsets of the file. NoEntry if it is none of the guest's."""
    guest = machine.guests.get(name)
    memfd = guest.memfds.get(file) if guest is not None and guest.open else None
    if guest is None or memfd is None:
        raise NoEntry(f"no guest_memfd {file} of guest {name}")
    if policy.mode is Mode.DEFAULT:
        policies = memfd.policies.remove(where.start, where.end)
    else:
        policies = memfd.policies.assign(where.start, where.end, policy)
    return _put(machine, evolve(guest, memfds=guest.memfds.set(file, evolve(memfd, policies=policies))))


# --- memory slots ---------------------------------------------------------------------


def set_slot(machine: Machine, name: str, slot: Memslot, populated: Ranges = NOTHING) -> Machine:
    """
    ``KVM_SET_USER_MEMORY_REGION``; `populated` are the offsets whose pages are allocated by now. Refused as KVM
    does, and with InvalidValue where ``policy/validate`` says that what is known to be wrong is to be refused.
    """
    guest = running(machine, name)
    new = name, slot.id
    creates = slot.id not in guest.slots
    guest = memslots.changed(guest, slot)
    after = _put(machine, guest)
    if not creates or slot.size == 0:
        return after
    memslots.check_binding(machine.guests[name], slot)
    after = _populate(after, new, populated)
    if machine.policies.validate is Validate.NONE:
        return after
    pledge = machine.policies.validate is Validate.PLEDGE
    made = after.guests[name].slots[slot.id]
    misfit = memslots.unfit(after, after.guests[name], made, pledge=pledge)
    if misfit is not None:
        reason = f"{misfit.reason} The slot is refused (validate={machine.policies.validate})."
        raise refused(machine, machine.guests[name], made, misfit, reason, InvalidValue, after.guests[name])
    return _put_slot(after, name, evolve(made, pledged=pledge))


def remap(machine: Machine, name: str, slot_id: int, backing: tuple[Stretch, ...]) -> Machine:
    """
    The program has mapped something else where a slot is. BadAddress for a pledged slot if that could kill
    the guest: the kernel would have declined the mapping.
    """
    guest = running(machine, name)
    slot = guest.slots.get(slot_id)
    if slot is None:
        raise NoEntry(f"no slot {slot_id}")
    new = evolve(slot, backing=backing, resident=())
    if slot.pledged:
        misfit = memslots.unfit(machine, guest, new, pledge=True)
        if misfit is not None:
            reason = f"{misfit.reason} The mapping was replaced after it was pledged."
            raise refused(machine, guest, slot, misfit, reason, BadAddress, guest)
    return _put_slot(machine, name, new)


def _populate(machine: Machine, where: tuple[str, int], populated: Ranges) -> Machine:
    # pages of the page cache and of shared memory that the program touched before
    name, slot_id = where
    slot = machine.guests[name].slots[slot_id]
    kinds = (Backs.SHMEM, Backs.PAGECACHE)
    for part in populated:
        for piece in memslots.pieces(machine, machine.guests[name], slot, part):
            if piece.stretch is None or piece.stretch.kind not in kinds or piece.policy is None:
                continue
            taken = _take(machine, machine.guests[name], slot, piece, piece.policy, judge=False)
            frames = tuple(_frames(piece.offsets.start, taken.pages))
            slot = machine.guests[name].slots[slot_id]
            resident = tuple(sorted((*slot.resident, *frames), key=lambda one: one.offset))
            slot = evolve(slot, resident=resident, pages=slot.pages | Ranges.of(taken.pages))
            machine = _put_slot(machine, name, slot)
    return machine


def _frames(offset: int, parts: tuple[Range, ...]) -> Iterator[Frames]:
    for part in parts:
        yield Frames(offset, part.size, part.start)
        offset += part.size


def _take(
    machine: Machine, guest: Guest, slot: Memslot, piece: Piece, policy: MemPolicy, *, judge: bool = True
) -> allocator.Taken:
    assert piece.stretch is not None
    task = memslots.task_of(machine, guest)
    turns = allocator.lanes(machine, task, policy, movable=piece.stretch.kind is not Backs.GUEST_MEMFD)
    anonymous = piece.stretch.kind is Backs.ANON
    base = slot.address if anonymous else piece.stretch.offset - piece.stretch.range.start
    first = (base + piece.offsets.start) // PAGE_SIZE
    return allocator.take(machine, turns, first, piece.offsets.size // PAGE_SIZE, judge=judge)


# --- faults ---------------------------------------------------------------------------


def touch(machine: Machine, name: str, gpa: int, size: int, leaf: Leaf = Leaf.AUG) -> Machine:
    """
    The guest touches ``[gpa, gpa + size)``, page after page. What it got before a refusal it keeps. NoEntry where
    there is no slot, BadAddress where nothing is mapped, NoMemory where the allocator has none, InputOutput when
    a page cannot back it: then the guest is dead.
    """
    running(machine, name)
    if not is_aligned(gpa, size) or not size or gpa + size >= 1 << 64:
        raise InvalidValue("the range must be of whole pages, and not empty")
    at = gpa
    while at < gpa + size:
        slot = memslots.slot_at(machine.guests[name], at)
        if slot is None:
            raise NoEntry(f"no slot at {at:#x}").leaving(machine)
        stop = min(gpa + size, slot.gpa + slot.size)
        for part in Ranges((Range(at - slot.gpa, stop - slot.gpa),)) - slot.touched:
            for piece in memslots.pieces(machine, machine.guests[name], slot, part):
                machine = _touch(machine, name, slot.id, piece, leaf)
        at = stop
    return machine


def add_memory(machine: Machine, name: str, gpa: int, size: int) -> Machine:
    """``KVM_TDX_INIT_MEM_REGION``: as `touch`, by TDH.MEM.PAGE.ADD; InvalidValue unless private and not finalized."""
    guest = running(machine, name)
    if guest.finalized or not size or not is_aligned(gpa, size) or not guest.private.covers(Range(gpa, gpa + size)):
        raise InvalidValue("initial memory must be private, of whole pages, and added before the TD is finalized")
    return touch(machine, name, gpa, size, Leaf.ADD)


def touched_until(guest: Guest, gpa: int) -> int:
    """The guest physical address up to which, from `gpa` on, the guest has pages."""
    while (slot := memslots.slot_at(guest, gpa)) is not None:
        part = next(slot.touched.within(Range(gpa - slot.gpa, slot.size)), None)
        if part is None or part.start != gpa - slot.gpa:
            break
        gpa = slot.gpa + part.end
    return gpa


def _touch(machine: Machine, name: str, slot_id: int, piece: Piece, leaf: Leaf) -> Machine:
    guest = machine.guests[name]
    slot = guest.slots[slot_id]
    if piece.hpa is None and piece.policy is None:
        reason = f"Nothing is mapped at {slot.address + piece.offsets.start:#x}, or not as the device allows."
        lack = Misfit(memslots.MAPPING, reason, piece.offsets.start, piece.stretch)
        raise refused(machine, guest, slot, lack, reason, BadAddress, guest)
    missing, pages = 0, Ranges()
    if piece.hpa is not None:
        bad = memslots.judge_page(machine, guest, piece)
        size = piece.offsets.size if bad is None else bad.offset - piece.offsets.start
        if size:
            pages = Ranges((Range(piece.hpa, piece.hpa + size),))
    else:
        assert piece.policy is not None
        taken = _take(machine, guest, slot, piece, piece.policy)
        size, pages, missing = taken.size, Ranges.of(taken.pages), taken.missing
        bad = None
        if taken.bad is not None:
            bad = memslots.misfit_at(machine, piece, taken.bad, piece.offsets.start + size)
    if size:
        got = Ranges((Range(piece.offsets.start, piece.offsets.start + size),))
        machine = _put_slot(machine, name, evolve(slot, touched=slot.touched | got, pages=slot.pages | pages))
    if bad is not None:
        raise _dies(machine, name, slot_id, bad, leaf)
    if missing:
        assert piece.policy is not None
        text = format_policy(piece.policy)
        reason = f"No memory is free under policy {text}: {missing} bytes are missing."
        lack = Misfit("out-of-memory", reason, piece.offsets.start + size, piece.stretch, policy=text)
        raise refused(machine, machine.guests[name], slot, lack, reason, NoMemory, machine.guests[name])
    return machine


def _dies(machine: Machine, name: str, slot_id: int, bad: Misfit, leaf: Leaf) -> Refusal:
    guest = machine.guests[name]
    assert bad.hpa is not None
    inside = bad.kind == memslots.OWNED or machine.tdmr_at.get(bad.hpa) is not None
    code = METADATA_INCORRECT if inside else ADDR_RANGE_ERROR
    death = None
    if machine.policies.report is Report.MESSAGE:
        death = evolve(
            _record(machine, guest, guest.slots[slot_id], bad, bad.reason, "EIO"), seamcall=leaf.value, code=code
        )
        machine = _tell(machine, ERR, name, death)
    line = f"kvm_intel: SEAMCALL {leaf.value} failed: {code:#x}, entry 0x0, level_state 0x0"
    machine = said(machine, ERR, line)
    machine = _put(machine, evolve(guest, life=Life.DEAD, death=death))
    return InputOutput(f"guest {name} is dead: {bad.reason}").leaving(machine)


# --- records --------------------------------------------------------------------------


def refused(
    machine: Machine,
    guest: Guest,
    slot: Memslot,
    misfit: Misfit,
    reason: str,
    error: type[Refusal],
    needy: Guest,
) -> Refusal:
    """
    The refusal `error` about a slot of `guest`, which stays as it is but for the record, if ``policy/report``
    wants one; `needy` is the guest as it would be, for which the remedy finds memory.
    """
    refusal = error(reason)
    if machine.policies.report is Report.SILENT:
        return refusal.leaving(machine)
    name = error.errno_name()
    record = _record(_put(machine, needy), needy, slot, misfit, reason, name)
    kept = (*guest.refusals, record)[-REFUSALS_KEPT:]
    machine = _put(machine, evolve(guest, refusals=kept, refused=guest.refused + 1))
    return refusal.leaving(_tell(machine, WARN, guest.name, record))


def _record(machine: Machine, guest: Guest, slot: Memslot, bad: Misfit, reason: str, errno_name: str) -> Record:
    return Record(
        kind=bad.kind,
        reason=reason,
        remedy=placement.remedy(close(_put(machine, evolve(guest, open=True)), guest.name), guest, bad.stretch),
        slot=slot.id,
        gpa=slot.gpa + bad.offset,
        hpa=bad.hpa,
        node=bad.node,
        dax=bad.dax,
        policy=bad.policy,
        errno=errno_name,
    )


def _tell(machine: Machine, level: int, name: str, record: Record) -> Machine:
    machine = said(machine, level, f"kvm_intel: TD {name}: gpa {record.gpa:#x}: {record.reason}")
    return said(machine, level, f"kvm_intel: TD {name}: next time: {record.remedy}")
