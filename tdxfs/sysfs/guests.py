"""``/sys/kernel/mm/tdx/guests``: what became of every TDX guest, and why; and the emulator's control of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import guestctl, guests
from tdxfs.mempolicy import format_policy
from tdxfs.model import PAGE_SIZE, Guest, Machine, Memslot, Record, Stretch
from tdxfs.sysfs.attribute import Attribute, Directory, Tier, directories, ro, rw, subdirectory, wo
from tdxfs.sysfs.codec import DECIMAL, HEX, LINE, WORD

WHAT = "/sys/kernel/mm/tdx/guests"


class StretchDir(Directory[tuple[tuple[str, int], int]]):
    """What backs a part of a memory slot; key: ((guest, slot), index)."""

    WHAT = f"{WHAT}/<guest>/memslots/slot<id>/backing<id>"
    TIER = Tier.PROPOSED

    @property
    def slot(self) -> Memslot:
        (guest, number), _ = self.key
        return self.machine.guests[guest].slots[number]

    @property
    def stretch(self) -> Stretch:
        return self.slot.backing[self.key[1]]

    @ro(WORD)
    def kind(self) -> str:
        """dax, bar, anon, shmem, pagecache or guest_memfd."""
        return self.stretch.kind.value

    @ro(HEX)
    def gpa(self) -> int:
        """First guest physical address."""
        return self.slot.gpa + self.stretch.range.start

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes."""
        return self.stretch.range.size

    @ro(LINE)
    def object(self) -> str:
        """The dax device, the PCI function and its BAR, or the guest_memfd. Absent for whatever else is allocated."""
        return self.stretch.object

    @object.visible
    def _has_object(self) -> bool:
        return bool(self.stretch.object)

    @ro(HEX)
    def offset(self) -> int:
        """Where in the object it begins, bytes."""
        return self.stretch.offset


class SlotDir(Directory[tuple[str, int]]):
    """A memory slot of a guest; key: (guest, slot)."""

    WHAT = f"{WHAT}/<guest>/memslots/slot<id>"
    TIER = Tier.PROPOSED

    @property
    def slot(self) -> Memslot:
        return self.machine.guests[self.key[0]].slots[self.key[1]]

    @ro(HEX)
    def gpa(self) -> int:
        """First guest physical address."""
        return self.slot.gpa

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes."""
        return self.slot.size

    @ro(HEX)
    def userspace_addr(self) -> int:
        """Where it is in the address space of the guest's process."""
        return self.slot.address

    @ro(HEX)
    def flags(self) -> int:
        """KVM_MEM_* flags."""
        return self.slot.flags

    @ro(DECIMAL, name="touched")
    def touched_(self) -> int:
        """Bytes that the guest has."""
        return self.slot.touched.size

    @ro(DECIMAL)
    def pledged(self) -> int:
        """1 if it was admitted under validate=pledge: what would kill the guest is declined, else 0."""
        return int(self.slot.pledged)

    @directories("backing<id>", StretchDir, nested=True)
    def backing(self) -> Collection[int]:
        """One per thing that backs a part of it, in order."""
        return range(len(self.slot.backing))


class SlotsDir(Directory[str]):
    """The memory slots of a guest."""

    WHAT = f"{WHAT}/<guest>/memslots"
    TIER = Tier.PROPOSED

    @directories("slot<id>", SlotDir, nested=True)
    def slots(self) -> Collection[int]:
        """One per slot."""
        return self.machine.guests[self.key].slots


class RecordDir(Directory[Any]):
    """What was impossible, and what to do next time."""

    WHAT = f"{WHAT}/<guest>/<record>"
    TIER = Tier.PROPOSED

    @property
    def record(self) -> Record:
        raise NotImplementedError

    @ro(WORD)
    def kind(self) -> str:
        """
        not-convertible, not-covered, reserved: that page; owned: some guest has it; policy: where the NUMA policy
        can lead; mapping: what is not mapped; out-of-memory; undermined: a change that was declined.
        """
        return self.record.kind

    @ro(LINE)
    def reason(self) -> str:
        """One sentence that says why."""
        return self.record.reason

    @ro(LINE)
    def remedy(self) -> str:
        """A command after which the guest lives, or none: and why there is none."""
        return self.record.remedy

    @ro(WORD)
    def error(self) -> str:
        """The errno that the program saw."""
        return self.record.errno

    @ro(DECIMAL)
    def slot(self) -> int:
        """The memory slot."""
        assert self.record.slot is not None
        return self.record.slot

    @ro(HEX)
    def gpa(self) -> int:
        """Guest physical address."""
        assert self.record.gpa is not None
        return self.record.gpa

    @ro(HEX)
    def hpa(self) -> int:
        """Host physical address. Absent where no page is meant."""
        assert self.record.hpa is not None
        return self.record.hpa

    @ro(HEX)
    def pfn(self) -> int:
        """Page frame number of the host page. Absent where no page is meant."""
        assert self.record.hpa is not None
        return self.record.hpa // PAGE_SIZE

    @ro(DECIMAL)
    def node(self) -> int:
        """Node of the host page. Absent if it has none."""
        assert self.record.node is not None
        return self.record.node

    @ro(WORD)
    def dax(self) -> str:
        """The dax device whose page it is. Absent if it is none's."""
        return self.record.dax

    @ro(LINE)
    def policy(self) -> str:
        """The NUMA policy in force, as numa_maps prints it. Absent where none matters."""
        return self.record.policy

    @slot.visible
    def _has_slot(self) -> bool:
        return self.record.slot is not None

    @gpa.visible
    def _has_gpa(self) -> bool:
        return self.record.gpa is not None

    def _has_hpa(self) -> bool:
        return self.record.hpa is not None

    hpa.visible(_has_hpa)
    pfn.visible(_has_hpa)

    @node.visible
    def _has_node(self) -> bool:
        return self.record.node is not None

    @dax.visible
    def _has_dax(self) -> bool:
        return bool(self.record.dax)

    @policy.visible
    def _has_policy(self) -> bool:
        return bool(self.record.policy)


class DeathDir(RecordDir):
    """Why the guest is dead; key: the guest."""

    WHAT = f"{WHAT}/<guest>/death"

    @property
    def record(self) -> Record:
        death = self.machine.guests[self.key].death
        assert death is not None
        return death

    @ro(WORD)
    def seamcall(self) -> str:
        """The SEAMCALL that failed."""
        return self.record.seamcall

    @ro(HEX)
    def error_code(self) -> int:
        """What it returned."""
        return self.record.code


class RefusalDir(RecordDir):
    """Why something was refused to the guest; key: (guest, number)."""

    WHAT = f"{WHAT}/<guest>/refusals/<id>"

    @property
    def record(self) -> Record:
        name, number = self.key
        guest: Guest = self.machine.guests[name]
        at: int = number - guest.refused
        return guest.refusals[at]


class RefusalsDir(Directory[str]):
    """What was refused to the guest, or because of it; the last ones."""

    WHAT = f"{WHAT}/<guest>/refusals"
    TIER = Tier.PROPOSED

    @directories("<id>", RefusalDir, nested=True)
    def all(self) -> Collection[int]:
        """One per refusal, numbered from 0."""
        guest = self.machine.guests[self.key]
        return range(guest.refused - len(guest.refusals), guest.refused)


class GuestDir(Directory[str]):
    """A TDX guest; key: its name, PID-N."""

    WHAT = f"{WHAT}/<guest>"
    TIER = Tier.PROPOSED

    @property
    def guest(self) -> Guest:
        return self.machine.guests[self.key]

    @ro(WORD)
    def state(self) -> str:
        """running, dead, or ended: closed while it was running."""
        return self.guest.life.value

    @ro(LINE)
    def command(self) -> str:
        """The command line of the process that made it."""
        return self.guest.command

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes of all its memory slots."""
        return self.guest.size

    @ro(LINE)
    def policy(self) -> str:
        """The NUMA policy of its process, as numa_maps prints it. Absent if the machine knows of none."""
        return format_policy(self.machine.tasks[self.guest.pid].policy)

    @policy.visible
    def _is_task(self) -> bool:
        return self.guest.pid in self.machine.tasks

    @subdirectory(SlotsDir, tier=Tier.PROPOSED)
    def memslots(self) -> bool:
        """Its memory slots."""
        return True

    @subdirectory(DeathDir, tier=Tier.PROPOSED)
    def death(self) -> bool:
        """Why it is dead. Absent while it is not, and under report=silent."""
        return self.guest.death is not None

    @subdirectory(RefusalsDir, tier=Tier.PROPOSED)
    def refusals(self) -> bool:
        """What was refused to it, or because of it."""
        return True


class GuestsDir(Directory[Any]):
    """The TDX guests, those that are gone too."""

    WHAT = WHAT
    TIER = Tier.PROPOSED

    @rw(DECIMAL)
    def limit(self) -> int:
        """How many guests that ended are remembered."""
        return self.machine.guest_limit

    @limit.store
    def _set_limit(self, limit: int) -> Machine:
        return guests.set_limit(self.machine, limit)

    @directories("<guest>", GuestDir, text=True)
    def all(self) -> Collection[str]:
        """One per guest."""
        return self.machine.guests


class GuestControlDir(Directory[Any]):
    """Where the events in the lives of guests are written."""

    WHAT = guestctl.CONTROL.rpartition("/")[0]
    TIER = Tier.EMULATOR

    control: Attribute[Any, str] = wo(LINE, "One event, such as: touch PID-N gpa=0 size=0x1000. See tdxfs guest.")

    @control.store
    def _command(self, line: str) -> Machine:
        return guestctl.command(self.machine, line)


DIRECTORIES = (GuestControlDir,)
