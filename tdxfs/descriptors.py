"""What the descriptors of KVM stand for, and how one that did not come from an open is made.

A file of a mount cannot return descriptors. A supervisor that can has a VM or a vCPU made by one ioctl, and opens the
device again for it: another ioctl turns that open into what was made.
"""

from __future__ import annotations

import struct
from enum import Flag, IntEnum, auto
from itertools import count

from attrs import define, field, fields_dict

from tdxfs.errors import Exists, InvalidValue

MAX_VCPUS = 1024
GUEST_MEMFD_FLAGS = 1 << 0
"""GUEST_MEMFD_FLAG_MMAP: all that a TD's guest_memfd can have."""
MAKE, TAKE = 0x40287400, 0x7401
"""
Ioctls of tdxfs itself. MAKE, with a `MADE`, returns the number of what it made: for a guest_memfd its guest's, as in
``PID-N``. TAKE, with the number of a VM or vCPU as its argument, turns an open that was not used yet into that.
"""
MADE = struct.Struct("=IIQQQQ")
"""
What is made, by the number of its ioctl; the thread that called it; its argument (type of the VM, id of the vCPU,
bytes of the guest_memfd); its flags; major and minor number (of 32 bits each) and inode of the file that is the
guest_memfd.
"""


class Create(IntEnum):
    """The ioctls that return descriptors."""

    VM = 0xAE01
    VCPU = 0xAE41
    GUEST_MEMFD = 0xC040AED4


class Kind(Flag):
    """What a descriptor stands for; several, where an ioctl takes any of them."""

    DEVICE = auto()
    """``/dev/kvm``, and the TD that it becomes if it is used as one."""
    VM = auto()
    VCPU = auto()


@define
class Descriptor:
    """One open of ``/dev/kvm``."""

    kind: Kind = Kind.DEVICE
    name: str = ""
    """The guest that it became."""
    tid: int = 0
    """The last thread that used it."""
    pid: int = 0
    """The process of that thread, and its command line."""
    command: str = ""

    def become(self, other: Descriptor) -> None:
        """Stand for what another one stands for."""
        for name in fields_dict(Descriptor):
            setattr(self, name, getattr(other, name))


@define
class Opens:
    """The opens of one ``/dev/kvm`` that are guests and vCPUs, and those that are to be."""

    _made: dict[int, Descriptor] = field(factory=dict, init=False)
    """Those that no open is yet."""
    _numbers: count[int] = field(factory=count, init=False)
    _users: dict[str, int] = field(factory=dict, init=False)
    """Guest -> how many opens are the guest or a vCPU of it."""
    _vcpus: dict[str, set[int]] = field(factory=dict, init=False)

    def put(self, descriptor: Descriptor) -> int:
        """The number by which to take what was made."""
        number = next(self._numbers)
        self._made[number] = descriptor
        return number

    def take(self, number: int, into: Descriptor) -> None:
        """Turn an open that is no guest into what was made; InvalidValue if that cannot be."""
        made = self._made.get(number)
        if made is None or into.name:
            raise InvalidValue(f"nothing was made as number {number}, or this open is a guest already")
        del self._made[number]
        into.become(made)
        self.add_user(made.name)

    def add_user(self, guest: str) -> None:
        """One more open is this guest, or a vCPU of it."""
        self._users[guest] = self._users.get(guest, 0) + 1

    def was_last(self, guest: str) -> bool:
        """An open of this guest is gone: whether no other is left."""
        self._users[guest] -= 1
        if self._users[guest]:
            return False
        del self._users[guest]
        self._vcpus.pop(guest, None)
        return True

    def add_vcpu(self, guest: str, number: int) -> None:
        """A guest gets a vCPU; InvalidValue for a number that none can have, Exists for one that another has."""
        known = self._vcpus.setdefault(guest, set())
        if number >= MAX_VCPUS:
            raise InvalidValue(f"vCPU {number}")
        if number in known:
            raise Exists(f"vCPU {number}")
        known.add(number)
