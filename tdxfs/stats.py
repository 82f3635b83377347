"""``struct stat`` as the bytes that libfuse takes: what many files share is put together once."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from functools import lru_cache
from typing import TypeAlias

from tdxfs.fuse_abi import c_stat
from tdxfs.model import PAGE_SIZE

STAT_SIZE = ctypes.sizeof(c_stat)
Parts: TypeAlias = tuple[bytes, bytes, bytes]
"""What stands before the inode number, between it and the times, and after them."""


def _field(name: str) -> tuple[struct.Struct, int]:
    column = getattr(c_stat, name)
    return struct.Struct({4: "=I", 8: "=q"}[column.size]), column.offset


_FIELDS = tuple(_field(f"st_{name}") for name in ("mode", "nlink", "size", "rdev", "uid", "gid", "blksize"))
_INO, _TIMES = c_stat.st_ino.offset, c_stat.st_atimespec.offset
_INO_SIZE, _TIMES_SIZE = 8, 48
pack_stat = struct.Struct(f"={_INO}sQ{_TIMES - _INO - _INO_SIZE}s6q{STAT_SIZE - _TIMES - _TIMES_SIZE}s").pack
"""First part, inode number, second, seconds and nanoseconds of atime, mtime and ctime, third."""


@lru_cache(maxsize=4096)
def parts_of(mode: int, nlink: int, size: int, rdev: int, uid: int, gid: int) -> Parts:
    """The parts that files alike in all these share."""
    buffer = bytearray(STAT_SIZE)
    for (form, offset), value in zip(_FIELDS, (mode, nlink, size, rdev, uid, gid, PAGE_SIZE), strict=True):
        form.pack_into(buffer, offset, value)
    return bytes(buffer[:_INO]), bytes(buffer[_INO + _INO_SIZE : _TIMES]), bytes(buffer[_TIMES + _TIMES_SIZE :])


def now() -> tuple[int, int]:
    """Seconds and nanoseconds."""
    return divmod(time.time_ns(), 1_000_000_000)


def owner() -> tuple[int, int]:
    """
    Uid and gid of every file: root, but in a user namespace that has no root nobody may write to root's files, so
    there the user owns them.
    """
    with open("/proc/self/uid_map", encoding="ascii") as file:
        if any(line.split()[0] == "0" for line in file):
            return 0, 0
    return os.geteuid(), os.getegid()
