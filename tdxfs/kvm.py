"""``/dev/kvm``: the ioctls of KVM by their numbers and structs (include/uapi/linux/kvm.h).

A file of a mount cannot return descriptors, so an open of it is one TD: the TD is made by the first ioctl that
is about a VM. A supervisor can return them: it has what they stand for made (`MAKE`), for the thread that called,
and another open become that (`TAKE`). Every event becomes a line of `guestctl`, written through the tree.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from attrs import define, evolve, field, frozen

from tdxfs import guestctl, guests, memslots
from tdxfs.caller import Caller, Device, Devices, mount_device
from tdxfs.descriptors import GUEST_MEMFD_FLAGS, MADE, MAKE, MAX_VCPUS, TAKE, Create, Descriptor, Kind, Opens
from tdxfs.errors import (
    BadAddress,
    BadDescriptor,
    InappropriateIoctl,
    InputOutput,
    InvalidValue,
    NoMemory,
    NotSupported,
    Refusal,
)
from tdxfs.model import PAGE_SIZE, Backs, Driver, Guest, Machine, Memslot, Stretch
from tdxfs.ranges import Range, Ranges
from tdxfs.sysfs import paths
from tdxfs.tree import Tree, inode_number

API_VERSION = 12
VCPU_MMAP_SIZE = 3 * PAGE_SIZE
VM_TYPE_DEFAULT, VM_TYPE_TDX = 0, 5
ATTRIBUTE_PRIVATE = 1 << 3
MEASURE_MEMORY_REGION = 1 << 0
TDX_INIT_VM, TDX_INIT_VCPU, TDX_INIT_MEM_REGION, TDX_FINALIZE_VM = 1, 2, 3, 4
CAP_VM_TYPES = 235
CAPABILITIES = {
    3: 1,  # USER_MEMORY
    9: 8,  # NR_VCPUS
    10: memslots.USER_MEM_SLOTS,  # NR_MEMSLOTS
    16: 1,  # DESTROY_MEMORY_REGION_WORKS
    21: 1,  # JOIN_MEMORY_REGIONS_WORKS
    66: MAX_VCPUS,
    112: 1,  # IMMEDIATE_EXIT
    231: 1,  # USER_MEMORY2
    232: 1,  # MEMORY_FAULT_INFO
    233: ATTRIBUTE_PRIVATE,  # MEMORY_ATTRIBUTES
    234: 1,  # GUEST_MEMFD
    236: 1,  # PRE_FAULT_MEMORY
    244: GUEST_MEMFD_FLAGS,
}
"""``KVM_CHECK_EXTENSION``: capability -> answer; VM_TYPES depends on the machine."""

_REGION = struct.Struct("=IIQQQ")
_REGION2 = struct.Struct("=IIQQQQI")
_ATTRIBUTES = struct.Struct("=QQQQ")
_PRE_FAULT = struct.Struct("=QQQ5Q")
_COMMAND = struct.Struct("=IIQQ")
_MEM_REGION = struct.Struct("=QQQ")


@frozen
class Call:
    """One ioctl."""

    descriptor: Descriptor
    argument: int
    """What the program passed: a number, or the address of its struct."""
    data: bytes
    """The struct, as large as the ioctl's number says."""
    caller: Caller


Answer = tuple[int, bytes]
"""What ioctl() returns, and the struct that goes back, empty if it does not."""


@define
class Kvm:
    """KVM of one mounted tree."""

    tree: Tree
    mountpoint: str
    _device: str = field(default="", init=False)
    _opens: Opens = field(factory=Opens, init=False)

    def ioctl(self, number: int, call: Call) -> Answer:
        """The answer to ioctl `number`; a Refusal with KVM's errno, ENOTTY for a number it does not know."""
        known = IOCTLS.get(number)
        if known is None or not known[1] & call.descriptor.kind:
            raise InappropriateIoctl(f"ioctl {number:#x}")
        if call.descriptor.name:
            guests.running(self.tree.machine, call.descriptor.name)
        return known[0](self, call)

    def release(self, descriptor: Descriptor) -> None:
        """The last reference to an open is gone; a guest lives as long as it or a vCPU of it is open."""
        if descriptor.name and self._opens.was_last(descriptor.name):
            self._event("close", descriptor.name)

    def _event(self, verb: str, name: str, **words: object) -> None:
        line = " ".join([verb, name, *(f"{word}={value}" for word, value in words.items() if value != "")])
        self._say(line)

    def _say(self, line: str) -> None:
        data = line.encode("utf-8", "replace")
        if len(data) >= PAGE_SIZE:
            raise NoMemory("too many mappings for one slot")
        self.tree.write(guestctl.CONTROL, data, internal=True)

    # --- about KVM --------------------------------------------------------------------

    def _api_version(self, call: Call) -> Answer:
        return API_VERSION, b""

    def _mmap_size(self, call: Call) -> Answer:
        return VCPU_MMAP_SIZE, b""

    def _extension(self, call: Call) -> Answer:
        if call.argument == CAP_VM_TYPES:
            return 1 << VM_TYPE_DEFAULT | (1 << VM_TYPE_TDX if self.tree.machine.tdx.enabled else 0), b""
        return CAPABILITIES.get(call.argument, 0), b""

    def _create_vm(self, call: Call) -> Answer:
        self._check_type(call.argument)
        raise NotSupported("a file of a mount cannot return a descriptor: this open is the TD itself")

    def _check_type(self, number: int) -> None:
        if number != VM_TYPE_TDX or not self.tree.machine.tdx.enabled:
            raise InvalidValue(f"VM type {number}")

    # --- what a supervisor returns descriptors of -------------------------------------

    def _make(self, call: Call) -> Answer:
        number, tid, argument, flags, device, inode = MADE.unpack(call.data)
        asked = evolve(call, argument=argument, caller=Caller(tid))
        match number, call.descriptor.kind:
            case Create.VM, Kind.DEVICE:
                return self._make_vm(asked), b""
            case Create.VCPU, Kind.VM:
                return self._make_vcpu(asked), b""
            case Create.GUEST_MEMFD, Kind.VM:
                return self._make_memfd(asked, flags, f"{device >> 32:02x}:{device & 0xFFFFFFFF:02x}:{inode}"), b""
        raise InappropriateIoctl(f"ioctl {number:#x}")

    def _make_vm(self, call: Call) -> int:
        self._check_type(call.argument)
        pid, command = call.caller.process()
        return self._opens.put(Descriptor(Kind.VM, self._create(pid, command), call.caller.tid, pid, command))

    def _make_vcpu(self, call: Call) -> int:
        guest = self._guest(call)
        self._opens.add_vcpu(guest.name, call.argument)
        return self._opens.put(evolve(call.descriptor, kind=Kind.VCPU))

    def _make_memfd(self, call: Call, flags: int, file: str) -> int:
        guest = self._guest(call)
        if flags & ~GUEST_MEMFD_FLAGS:
            raise InvalidValue(f"flags {flags:#x}")
        self._event("memfd", guest.name, file=file, size=hex(call.argument))
        return int(guest.name.partition("-")[2])

    def _take(self, call: Call) -> Answer:
        self._opens.take(call.argument, call.descriptor)
        return 0, b""

    # --- about a TD -------------------------------------------------------------------

    def _guest(self, call: Call) -> Guest:
        # the guest of this open, made now if it is not there; KVM answers EIO to other processes
        descriptor = call.descriptor
        if descriptor.tid != call.caller.tid:
            descriptor.pid, descriptor.command = call.caller.process()
            descriptor.tid = call.caller.tid
        pid = descriptor.pid
        if not descriptor.name:
            descriptor.name = self._create(pid, descriptor.command)
            self._opens.add_user(descriptor.name)
        guest = guests.running(self.tree.machine, descriptor.name)
        if guest.pid != pid:
            raise InputOutput("the guest is another process's")
        return guest

    def _create(self, pid: int, command: str) -> str:
        known = self.tree.machine.guests
        number = next(n for n in range(len(known) + 1) if f"{pid}-{n}" not in known)
        name = f"{pid}-{number}"
        self._say(f"create {name} {command[: guests.COMMAND_LENGTH]}")
        return name

    def _devices(self) -> Devices:
        self._device = self._device or mount_device(self.mountpoint)
        return Devices(self._device, _memory_files(self.tree.machine))

    def _set_region(self, call: Call) -> Answer:
        slot, flags, gpa, size, address = _REGION.unpack(call.data)
        if flags & memslots.GUEST_MEMFD:
            raise InvalidValue("KVM_MEM_GUEST_MEMFD needs KVM_SET_USER_MEMORY_REGION2")
        return self._set(call, Memslot(slot, gpa, size, address, flags))

    def _set_region2(self, call: Call) -> Answer:
        slot, flags, gpa, size, address, offset, descriptor = _REGION2.unpack_from(call.data)
        wanted = Memslot(slot, gpa, size, address, flags)
        if flags & memslots.GUEST_MEMFD and size:
            if offset % PAGE_SIZE or offset + size >= 1 << 64:
                raise InvalidValue("the offset in guest_memfd must be a multiple of a page")
            memslots.changed(self._guest(call), wanted)
            file = call.caller.file(descriptor)
            if file is None:
                raise BadDescriptor(f"descriptor {descriptor}")
            wanted = evolve(wanted, backing=(Stretch(Range(0, size), Backs.GUEST_MEMFD, file, offset),))
        return self._set(call, wanted)

    def _set(self, call: Call, slot: Memslot) -> Answer:
        guest = self._guest(call)
        memslots.changed(guest, slot)  # what is wrong with the numbers comes before what is behind them
        backing = slot.backing
        resident = Ranges()
        if slot.size and slot.id not in guest.slots and not backing:
            backing = call.caller.backing(slot.address, slot.size, self._devices())
            if any(stretch.kind in (Backs.SHMEM, Backs.PAGECACHE) for stretch in backing):
                resident = call.caller.resident(slot.address, backing)
        self._event(
            "set",
            guest.name,
            slot=slot.id,
            gpa=hex(slot.gpa),
            size=hex(slot.size),
            address=hex(slot.address),
            flags=slot.flags,
            backing=guestctl.format_backing(backing),
            resident=guestctl.format_ranges(resident),
        )
        return 0, b""

    def _set_attributes(self, call: Call) -> Answer:
        address, size, attributes, flags = _ATTRIBUTES.unpack(call.data)
        if flags or attributes & ~ATTRIBUTE_PRIVATE:
            raise InvalidValue(f"attributes {attributes:#x}, flags {flags:#x}")
        guest = self._guest(call)
        self._event("attributes", guest.name, gpa=hex(address), size=hex(size), private=int(bool(attributes)))
        return 0, b""

    def _pre_fault(self, call: Call) -> Answer:
        gpa, size, flags, *_ = _PRE_FAULT.unpack(call.data)
        if flags or not size or not memslots.is_aligned(gpa, size) or gpa + size >= 1 << 64:
            raise InvalidValue("the range must be of whole pages, and not empty")
        done = self._fault(call, "touch", gpa, size)
        return 0, _PRE_FAULT.pack(gpa + done, size - done, flags, *_)

    def _fault(self, call: Call, verb: str, gpa: int, size: int) -> int:
        # how many bytes of pages the guest has got; refused only if there are none (kvm_vcpu_pre_fault_memory)
        guest = self._guest(call)
        self._follow_mappings(call, guest, gpa, size)
        try:
            self._event(verb, guest.name, gpa=hex(gpa), size=hex(size))
        except Refusal:
            reached = guests.touched_until(self.tree.machine.guests[guest.name], gpa)
            if reached <= gpa:
                raise
            return min(reached - gpa, size)
        return size

    def _follow_mappings(self, call: Call, guest: Guest, gpa: int, size: int) -> None:
        # KVM looks at a slot's mapping when it faults, not when it is set
        for _, _, number in guest.layout.within(gpa, gpa + size):
            slot = guest.slots[number]
            if slot.flags & memslots.GUEST_MEMFD:
                continue
            backing = call.caller.backing(slot.address, slot.size, self._devices())
            if backing != slot.backing:
                self._event("remap", guest.name, slot=number, backing=guestctl.format_backing(backing))

    def _encrypt_op(self, call: Call) -> Answer:
        # the number says eight bytes, the struct has 24: the rest is fetched
        identity, flags, address, hw_error = _COMMAND.unpack(call.caller.read(call.argument, _COMMAND.size))
        if hw_error:
            raise InvalidValue("hw_error must be 0")
        guest = self._guest(call)
        match identity:
            case 1 | 2 if not flags:  # INIT_VM, INIT_VCPU
                return 0, call.data
            case 4 if not flags:  # FINALIZE_VM
                self._event("finalize", guest.name)
                return 0, call.data
            case 3 if not flags & ~MEASURE_MEMORY_REGION:  # INIT_MEM_REGION
                self._init_memory(call, address)
                return 0, call.data
        raise InvalidValue(f"command {identity}, flags {flags:#x}")

    def _init_memory(self, call: Call, address: int) -> None:
        source, gpa, pages = _MEM_REGION.unpack(call.caller.read(address, _MEM_REGION.size))
        size = pages * PAGE_SIZE
        if not pages or not memslots.is_aligned(source, gpa) or gpa + size >= 1 << 64:
            raise InvalidValue("source and guest address must be multiples of a page, and pages not 0")
        done = self._fault(call, "add", gpa, size)
        call.caller.write(address, _MEM_REGION.pack(source + done, gpa + done, pages - done // PAGE_SIZE))
        if done < size:
            guests.running(self.tree.machine, call.descriptor.name)
            raise BadAddress(f"the source or the guest's memory ends at {gpa + done:#x}")


IOCTLS: dict[int, tuple[Callable[[Kvm, Call], Answer], Kind]] = {
    0xAE00: (Kvm._api_version, Kind.DEVICE),
    Create.VM: (Kvm._create_vm, Kind.DEVICE),
    0xAE03: (Kvm._extension, Kind.DEVICE | Kind.VM),
    0xAE04: (Kvm._mmap_size, Kind.DEVICE),
    0x4020AE46: (Kvm._set_region, Kind.DEVICE | Kind.VM),
    0x40A0AE49: (Kvm._set_region2, Kind.DEVICE | Kind.VM),
    0x4020AED2: (Kvm._set_attributes, Kind.DEVICE | Kind.VM),
    0xC040AED5: (Kvm._pre_fault, Kind.DEVICE | Kind.VCPU),
    0xC008AEBA: (Kvm._encrypt_op, Kind.DEVICE | Kind.VM | Kind.VCPU),
    MAKE: (Kvm._make, Kind.DEVICE | Kind.VM),
    TAKE: (Kvm._take, Kind.DEVICE),
}
"""The ioctls, by number, each with the kinds of descriptors that have it."""


def _memory_files(machine: Machine) -> dict[int, Device]:
    # inode -> the dax device or BAR, for all that can be mapped
    found = {}
    for device in machine.dax.values():
        if device.driver is Driver.DEVICE_DAX:
            found[inode_number(f"/dev/{device.name}")] = Device(Backs.DAX, device.name, device.align)
    for function in machine.topology.pci_devices:
        for bar in function.bars:
            path = f"{paths.pci(machine, function.address)}/resource{bar.index}"
            found[inode_number(path)] = Device(Backs.BAR, f"{function.address}/resource{bar.index}", PAGE_SIZE)
    return found
