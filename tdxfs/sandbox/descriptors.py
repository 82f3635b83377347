"""The ioctls of KVM that return descriptors: what they stand for is made by the server, and handed to the caller.

A VM and a vCPU are opens of the machine's own ``dev/kvm``, a guest_memfd is a memfd of that size.
"""

from __future__ import annotations

import fcntl
import os
import struct

from tdxfs.caller import file_name
from tdxfs.descriptors import MADE, MAKE, TAKE, Create
from tdxfs.errors import InvalidValue
from tdxfs.sandbox import linux
from tdxfs.sandbox.calls import INT, Calls, signed
from tdxfs.sandbox.seccomp import Handed

DEVICE = "dev/kvm"
_GUEST_MEMFD = struct.Struct("=QQ6Q")


class Descriptors:
    """The descriptors of KVM that the processes of one run ask for."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self._device = ""

    def ioctl(self, tid: int, descriptor: int, number: int, argument: int, *_: int) -> Handed | None:
        """One of `Create`; None: it is about a file that is not the machine's, and the kernel answers."""
        if self.calls.processes.file(tid, signed(descriptor)) != self._kvm():
            return None
        pidfd = os.pidfd_open(self.calls.leader(tid))
        try:
            asked = linux.copy_descriptor(pidfd, signed(descriptor))
        finally:
            os.close(pidfd)
        try:
            if number % INT == Create.GUEST_MEMFD:
                return self._memfd(tid, asked, argument)
            return self._open(tid, asked, number % INT, argument)
        finally:
            os.close(asked)

    def _kvm(self) -> str:
        if not self._device:
            self._device = file_name(os.stat(DEVICE, dir_fd=self.calls.kernel.root))
        return self._device

    def _open(self, tid: int, asked: int, number: int, argument: int) -> Handed:
        new = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC, dir_fd=self.calls.kernel.root)
        try:
            fcntl.ioctl(new, TAKE, _make(asked, MADE.pack(number, tid, argument, 0, 0, 0)))
        except BaseException:
            os.close(new)
            raise
        return Handed(new)

    def _memfd(self, tid: int, asked: int, argument: int) -> Handed:
        size, flags, *reserved = _GUEST_MEMFD.unpack(self.calls.processes.read(tid, argument, _GUEST_MEMFD.size))
        if any(reserved):
            raise InvalidValue("what is reserved must be 0")
        new = os.memfd_create("kvm-gmem", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            status = os.fstat(new)
            device = os.major(status.st_dev) << 32 | os.minor(status.st_dev)
            made = MADE.pack(Create.GUEST_MEMFD, tid, size, flags, device, status.st_ino)
            guest = f"{self.calls.leader(tid)}-{_make(asked, made)}"
            os.ftruncate(new, size)
            fcntl.fcntl(new, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except BaseException:
            os.close(new)
            raise
        self.calls.memfds[file_name(status)] = guest
        return Handed(new)


def _make(descriptor: int, what: bytes) -> int:
    return int(fcntl.ioctl(descriptor, MAKE, bytearray(what)))
