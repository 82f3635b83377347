"""How the emulated kernel says no, and how tdxfs says that its input is wrong.

A `Refusal` is an answer of the emulated kernel: it carries the errno that the
system call returns. A `UserError` is about what a person typed or wrote into a
file: one line, no traceback.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar, Self


class Refusal(OSError):
    """The emulated kernel refuses; `errno` is what the system call returns."""

    number: ClassVar[int] = errno.EIO
    machine: Any = None
    """The Machine that it became all the same, with a line in its log or a record; None: nothing changed."""

    def __init__(self, why: str = "") -> None:
        super().__init__(self.number, why or errno.errorcode[self.number])

    @classmethod
    def errno_name(cls) -> str:
        """``EINVAL`` and so on."""
        return errno.errorcode[cls.number]

    def leaving(self, machine: Any) -> Self:
        """The same refusal, leaving `machine` behind."""
        self.machine = machine
        return self


class NoEntry(Refusal):
    """ENOENT: no such name in the tree."""

    number = errno.ENOENT


class NotADirectory(Refusal):
    """ENOTDIR: a path goes through something that is not a directory."""

    number = errno.ENOTDIR


class NotPermitted(Refusal):
    """EPERM: the operation is not allowed, whoever asks."""

    number = errno.EPERM


class NoDevice(Refusal):
    """ENODEV: the object behind an open descriptor is gone, or does not match."""

    number = errno.ENODEV


class NoAddress(Refusal):
    """ENXIO: the file is there, what it would speak about is not."""

    number = errno.ENXIO


class InputOutput(Refusal):
    """EIO: the attribute cannot be shown (`autosuspend_delay_ms`)."""

    number = errno.EIO


class Busy(Refusal):
    """EBUSY: it is in use."""

    number = errno.EBUSY


class AccessDenied(Refusal):
    """EACCES: the file's mode does not allow it, even to root."""

    number = errno.EACCES


class InvalidValue(Refusal):
    """EINVAL: the bytes written mean nothing to this file."""

    number = errno.EINVAL


class BadAddress(Refusal):
    """EFAULT: nothing is mapped at an address."""

    number = errno.EFAULT


class TryAgain(Refusal):
    """EAGAIN: not now, or not all of it."""

    number = errno.EAGAIN


class OutOfRange(Refusal):
    """ERANGE: a number that is too large for the file."""

    number = errno.ERANGE


class Exists(Refusal):
    """EEXIST: there is such a thing already."""

    number = errno.EEXIST


class NoSpace(Refusal):
    """ENOSPC: more is asked for than there is left."""

    number = errno.ENOSPC


class NoMemory(Refusal):
    """ENOMEM: that very memory cannot be had."""

    number = errno.ENOMEM


class NotSupported(Refusal):
    """EOPNOTSUPP: the object, or the machine, is of a kind that cannot do this."""

    number = errno.EOPNOTSUPP


class NoProcess(Refusal):
    """ESRCH: no such process."""

    number = errno.ESRCH


class BadDescriptor(Refusal):
    """EBADF: no such open file."""

    number = errno.EBADF


class InappropriateIoctl(Refusal):
    """ENOTTY: the file knows no such ioctl."""

    number = errno.ENOTTY


class UserError(Exception):
    """
    What the user gave is wrong. The text is one line that names the file (or
    option), the key, the value and the rule.
    """
