"""The seccomp filter that sends a few system calls to a supervisor, and the descriptor that it reads them from.

Everything else runs at full speed: the filter lets it pass in the kernel. Compare seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from contextlib import suppress

import pyseccomp
from attrs import frozen

from tdxfs.errors import UserError

CLONE_THREAD = 0x10000
MAP_FIXED, MAP_DENYWRITE = 0x10, 0x800
CONTINUE = 1
"""SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel answers."""

_RECEIVE, _SEND, _ID_VALID, _ADD_FD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
_SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")
_NUMBERS = {"set_mempolicy_home_node": 450, "clone3": 435}
"""Calls newer than some libseccomp: their numbers, the same on every architecture."""
_ONLY = {
    "clone": pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_THREAD, CLONE_THREAD),
    "mmap": pyseccomp.Arg(3, pyseccomp.MASKED_EQ, MAP_FIXED | MAP_DENYWRITE, MAP_FIXED),
}
"""
Calls that are sent with some arguments only: of clone that of a thread, of mmap what replaces other mappings, but not
the parts of a library, which the dynamic loader maps over a mapping of the whole that it has just made.
"""


def number(name: str) -> int:
    """The number of a system call on this machine."""
    try:
        found = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except ValueError:
        found = -1
    return found if found >= 0 else _NUMBERS[name]


@frozen
class Call:
    """A system call that a thread waits in."""

    id: int
    tid: int
    number: int
    args: tuple[int, ...]
    """All six, unsigned."""


@frozen
class Handed:
    """The result of a call that returns a descriptor: one of this process that the caller gets, close-on-exec."""

    descriptor: int


def install(calls: Iterable[str], ioctls: Iterable[int] = ()) -> int:
    """
    Send these system calls, some with certain arguments only, and ioctl(2) with these numbers, of this process and its
    children to whoever reads the descriptor returned. Calls by the numbers of another architecture (i386, x32) are
    never sent: the running system answers them. UserError if the kernel refuses, as it does below another supervisor.
    """
    calls_filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    calls_filter.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ALLOW)
    if os.geteuid() == 0:
        calls_filter.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    for name in calls:
        calls_filter.add_rule(pyseccomp.NOTIFY, number(name), *((_ONLY[name],) if name in _ONLY else ()))
    for asked in ioctls:  # an unsigned int; what else is in the register does not count
        which = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, asked)
        calls_filter.add_rule(pyseccomp.NOTIFY, number("ioctl"), which)
    try:
        calls_filter.load()
    except OSError as error:
        why = "the kernel refuses a seccomp supervisor, as it does inside another one, such as another `tdxfs run`"
        raise UserError(f"run: {why}") from error
    listener = pyseccomp._libseccomp.seccomp_notify_fd(calls_filter._filter)
    if listener < 0:
        raise UserError("run: the kernel has no seccomp user notification")
    return int(listener)


def wake_here(listener: int) -> None:
    """Let who waits and who answers take turns on one CPU, where the kernel (6.6) knows how: neither has other work."""
    with suppress(OSError):
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)


def is_waiting(listener: int, id: int) -> bool:
    """Whether a thread still waits in a call that was received; otherwise it is gone, or a signal interrupted it."""
    try:
        fcntl.ioctl(listener, _ID_VALID, id.to_bytes(8, "little"))
    except OSError:
        return False
    return True


def receive(listener: int) -> Call | None:
    """The next call; None if the thread was killed meanwhile."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    id, tid, _, nr, _, _, *args = _NOTIFICATION.unpack(buffer)
    return Call(id, tid, nr, tuple(args))


def hand(listener: int, call: Call, handed: Handed) -> int:
    """Give the thread a descriptor: its number there, or a negative errno."""
    request = bytearray(_ADDFD.pack(call.id, 0, handed.descriptor, 0, os.O_CLOEXEC))
    try:
        return int(fcntl.ioctl(listener, _ADD_FD, request))
    except OSError as error:
        return -(error.errno or errno.EIO)
    finally:
        os.close(handed.descriptor)


def answer(listener: int, call: Call, result: int | None) -> None:
    """Let the call return `result`, an errno if negative; None: let the kernel do it."""
    if result is None:
        response = _RESPONSE.pack(call.id, 0, 0, CONTINUE)
    elif result < 0:
        response = _RESPONSE.pack(call.id, 0, result, 0)
    else:
        response = _RESPONSE.pack(call.id, result, 0, 0)
    try:
        fcntl.ioctl(listener, _SEND, bytearray(response))
    except OSError as error:
        if error.errno != errno.ENOENT:  # it was killed, or a signal interrupted it
            raise
