"""System calls as tests look at them: a call is its value, or the name of the errno it failed with."""

import ctypes
import errno
import os
import select
import struct
import threading
from contextlib import contextmanager

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, RENAME_EXCHANGE = -100, 0x100, 2
NOBODY = 65534
UNSUPPORTED = errno.errorcode[errno.EOPNOTSUPP]


def answer(call, *arguments, **options):
    """What the call returns, or the name of its errno."""
    try:
        return call(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]


def libc(name, *arguments):
    """The same of a C function that Python does not wrap."""
    result = getattr(LIBC, name)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


@contextmanager
def opened(path, flags=os.O_RDONLY):
    """A descriptor for the time of a ``with`` block."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        answer(os.close, descriptor)  # of a dead mount: ENOTCONN, and closed


def can_open(path, flags):
    """``ok``, or the name of the errno."""
    descriptor = answer(os.open, path, flags)
    if isinstance(descriptor, str):
        return descriptor
    os.close(descriptor)
    return "ok"


def getdents(descriptor, size=1 << 16):
    """(d_ino, d_off, d_type, name) of what one getdents64(2) returns, or the name of the errno."""
    buffer = ctypes.create_string_buffer(size)
    got = libc("getdents64", descriptor, buffer, ctypes.c_size_t(size))
    if isinstance(got, str):
        return got
    rows, at = [], 0
    while at < got:
        ino, off, length, kind = struct.unpack_from("=QqHB", buffer, at)
        rows.append((ino, off, kind, buffer.raw[at + 19 : at + length].split(b"\0")[0].decode()))
        at += length
    return rows


def statx(path):
    """stx_mask, stx_attributes and stx_attributes_mask."""
    buffer = ctypes.create_string_buffer(256)
    LIBC.statx(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW, 0x17FF, buffer)
    mask, _, attributes = struct.unpack_from("=IIQ", buffer)
    return mask, attributes, struct.unpack_from("=Q", buffer, 56)[0]


def poll(descriptor, events):
    """revents of a poll(2) that does not wait; 0 if there are none."""
    poller = select.poll()
    poller.register(descriptor, events)
    found = poller.poll(0)
    return found[0][1] if found else 0


def as_nobody(call, *arguments):
    """`answer` as a user without privileges: in a thread with another filesystem uid, unless we are ordinary."""
    result = []

    def run():
        if os.geteuid() == 0:
            LIBC.setfsgid(NOBODY)
            LIBC.setfsuid(NOBODY)  # of this thread only; takes the file capabilities with it
        result.append(answer(call, *arguments))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]
