"""What a kernel that pledges declines: changes that would take the memory of a live guest from under it.

`kept` looks at every change of the machine, whoever makes it. It costs nothing while no guest lives.
"""

from __future__ import annotations

from attrs import evolve

from tdxfs import guests, memslots
from tdxfs.capability import online_memory
from tdxfs.errors import Busy, NotPermitted
from tdxfs.model import Guest, Life, Machine, MemPolicy, Memslot
from tdxfs.nodes import has_memory
from tdxfs.ranges import Range, Ranges

INPUTS = ("blocks", "ram", "dax", "tasks", "default_mems")
"""The fields of a Machine that decide which memory a guest can be given."""


def kept(before: Machine, after: Machine) -> Machine:
    """
    `after`, if no live guest loses by it. NotPermitted, naming the guest, if it would undermine a slot that was
    pledged; Busy if it would take online memory away that a guest holds.
    """
    if not before.guests or all(getattr(before, name) is getattr(after, name) for name in INPUTS):
        return after
    live = [guest for guest in after.guests.values() if guest.open and guest.life is Life.RUNNING]
    for guest in live:
        if guest.pid in before.tasks and guest.pid not in after.tasks:
            continue  # its process is gone
        for slot in guest.slots.values():
            if slot.pledged:
                _keep(before, after, guest, slot)
    if before.blocks is not after.blocks:
        _in_use(before, after)
    return after


def bind_memfd(machine: Machine, name: str, file: str, where: Range, policy: MemPolicy) -> Machine:
    """`guests.bind_memfd`; NotPermitted, as `kept`, if it would undermine a slot of the guest."""
    after = guests.bind_memfd(machine, name, file, where, policy)
    guest = after.guests[name]
    for slot in guest.slots.values():
        if slot.pledged and guest.life is Life.RUNNING:
            _keep(machine, after, guest, slot)
    return after


def _keep(before: Machine, after: Machine, guest: Guest, slot: Memslot) -> None:
    misfit = memslots.unfit(after, guest, slot, pledge=True)
    if misfit is None or memslots.unfit(before, before.guests[guest.name], slot, pledge=True) is not None:
        return
    reason = f"The change is declined: guest {guest.name} was promised memory for slot {slot.id}. {misfit.reason}"
    said = evolve(misfit, kind="undermined")
    raise guests.refused(before, before.guests[guest.name], slot, said, reason, NotPermitted, guest)


def _in_use(before: Machine, after: Machine) -> None:
    lost = Ranges.of(part for nid in has_memory(before) for part in online_memory(before, nid))
    lost -= Ranges.of(part for nid in has_memory(after) for part in online_memory(after, nid))
    for part in lost:
        for start, end, name in after.guest_pages.within(part.start, part.end):
            raise Busy(f"guest {name} has {Range(start, end)}")
