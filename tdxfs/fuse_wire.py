"""``<linux/fuse.h>`` as bytes: the requests that are answered without libfuse, and their answers.

What of an answer many files share is put together once (`Parts`).
"""

from __future__ import annotations

import errno
import struct
import sys
from functools import lru_cache
from time import clock_gettime_ns
from typing import TypeAlias

from attrs import frozen

from tdxfs.model import PAGE_SIZE

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, MKNOD, OPEN, READ, WRITE, RELEASE = 1, 2, 3, 4, 5, 8, 14, 15, 16, 18
INIT, OPENDIR, READDIR, RELEASEDIR, DESTROY, IOCTL, BATCH_FORGET, READDIRPLUS = 26, 27, 28, 29, 38, 39, 42, 44
REFUSED = {
    35: -errno.EACCES,  # CREATE
    30: -errno.ENOSYS,  # FSYNCDIR
    **dict.fromkeys((6, 9, 10, 11, 12, 13, 45), -errno.EPERM),  # SYMLINK, MKDIR, UNLINK, RMDIR, RENAME, LINK, RENAME2
}
"""What no file of sysfs does."""
ROOT_NODEID = 1
FOREVER = 3600
"""Seconds that the kernel may keep names and attributes: it is told what becomes wrong (`cached`)."""
DIRECT_IO = 1
"""Flag of an answer to OPEN: the page cache is passed by."""
CLOCK_REALTIME_COARSE = 5
"""Of ``<linux/time.h>``, which `time` lacks."""
BODY = 40
"""Where a request's own struct, or its name, begins."""

unpack_head = struct.Struct("=8xQq").unpack_from
"""The number of a request, which its answer bears, and the number of the node that it is about."""
NODEID = slice(16, 24)
"""Where that stands."""
ROOT = struct.pack("=Q", ROOT_NODEID)
unpack_read = struct.Struct("=40xQQI").unpack_from
"""``struct fuse_read_in``: handle, offset, size; ``struct fuse_write_in`` and fuse_release_in begin like it."""
unpack_open = struct.Struct("=16xq16xI").unpack_from
"""Node number, and the flags of ``struct fuse_open_in``."""
WRITTEN = BODY + 40
"""Where the data of a WRITE begins."""
pack_written = struct.Struct("=I4x").pack
"""``struct fuse_write_out``: how many bytes."""
IOCTL_DIR = 1 << 4
"""Flag of ``struct fuse_ioctl_in``, behind the handle: it is about a directory."""
unpack_mode = struct.Struct("=40xI").unpack_from
"""Of ``struct fuse_mknod_in``."""
pack_reply = struct.Struct("=IiQ").pack
"""``struct fuse_out_header``, 16 bytes: length with the data, negative errno, number of the request."""
pack_opened = struct.Struct("=QI4x").pack
"""``struct fuse_open_out``: handle, flags."""
_count = struct.Struct("=40xQ").unpack_from
_forgotten = struct.Struct("=qQ")
_INIT_FLAGS = struct.Struct("=28xI")
_DO_READDIRPLUS, _READDIRPLUS_AUTO = 1 << 13, 1 << 14


def forgotten(data: bytearray) -> list[tuple[int, int]]:
    """(node number, how many look-ups of it) of a FORGET or BATCH_FORGET."""
    if data[4] == FORGET:
        return [(unpack_head(data)[1], _count(data)[0])]
    here = BODY + 8
    return list(_forgotten.iter_unpack(data[here : here + _count(data)[0] % (1 << 32) * _forgotten.size]))


def with_readdirplus(request: bytearray, reply: bytes) -> bytes:
    """The reply to an INIT, with READDIRPLUS where the kernel can do it: libfuse 2 does not know it."""
    offered = struct.unpack_from("=52xI", request)[0]
    flags = _INIT_FLAGS.unpack_from(reply)[0] | offered & (_DO_READDIRPLUS | _READDIRPLUS_AUTO)
    return reply[:28] + struct.pack("=I", flags) + reply[32:]


# --- what stat(2) says ----------------------------------------------------------------

Parts: TypeAlias = tuple[bytes, bytes]
"""``struct fuse_attr`` but for the inode number and the times: what stands between these, and what behind them."""
_VALID, _BRIEF = struct.pack("=8xQQ8x", FOREVER, FOREVER), struct.pack("=16xQ8x", FOREVER)
_ENTRY = struct.Struct("=q32sQ16s36s28s").pack
_times = struct.Struct("=qqqIII")
_VALIDITY = slice(8, 40)
_ATTRIBUTES_VALID = struct.pack("=Q8x", FOREVER)
_ATTRIBUTES, _SIZES, _TIMES, _TAIL = 40, 48, 64, 100
"""Where in ``struct fuse_entry_out`` these begin."""
MISSING = struct.pack("=16xQ104x", FOREVER)
"""``struct fuse_entry_out`` of a name that is not there."""
ENTRY_SIZE = 128
MISSING_NOW = bytes(ENTRY_SIZE)
"""The same, of one that may come at any time."""
NO_ENTRY = bytes(ENTRY_SIZE)
"""Of a name of which READDIRPLUS says nothing."""


@lru_cache(maxsize=4096)
def parts_of(mode: int, nlink: int, size: int, rdev: int, uid: int, gid: int) -> Parts:
    """The parts that files alike in all these share."""
    return struct.pack("=QQ", size, 0), struct.pack("=7I", mode, nlink, uid, gid, rdev, PAGE_SIZE, 0)


def entry(nodeid: int, number: int, parts: Parts, times: bytes, brief: bool) -> bytes:
    """
    ``struct fuse_entry_out`` of a node with an inode number and the times of `times_now`; `brief`: the kernel may not
    keep its name.
    """
    return _ENTRY(nodeid, _BRIEF if brief else _VALID, number, parts[0], times, parts[1])


def is_brief(said: bytes) -> bool:
    """Whether the kernel may not keep the name of an `entry`."""
    return said[_VALIDITY] == _BRIEF


def again(said: bytes, parts: Parts) -> bytes:
    """An `entry` with other parts and the times that it has."""
    return said[:_SIZES] + parts[0] + said[_TIMES:_TAIL] + parts[1]


def at_times(said: bytes, times: tuple[int, ...]) -> bytes:
    """An `entry` with other times: seconds and nanoseconds of atime, mtime and ctime."""
    return said[:_TIMES] + _times.pack(*times[::2], *times[1::2]) + said[_TAIL:]


def times(said: bytes) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Seconds and nanoseconds of atime, mtime and ctime of an `entry`."""
    a, m, c, anano, mnano, cnano = _times.unpack_from(said, _TIMES)
    return (a, anano), (m, mnano), (c, cnano)


def mode_of(said: bytes) -> int:
    """Type and permission bits of an `entry`."""
    return int.from_bytes(said[_TAIL : _TAIL + 4], sys.byteorder)


def attributes(said: bytes) -> bytes:
    """``struct fuse_attr_out`` of an `entry`."""
    return _ATTRIBUTES_VALID + said[_ATTRIBUTES:]


@frozen
class Change:
    """What a SETATTR changes; None: nothing."""

    mode: int | None
    uid: int | None
    gid: int | None
    size: int | None
    """In bytes."""
    truncates: bool
    """Whether it is truncate(2), or O_TRUNC; ftruncate(2) changes nothing in sysfs."""
    atime: tuple[int, int] | None
    """Seconds and nanoseconds, as `mtime`."""
    mtime: tuple[int, int] | None


def change(data: bytearray) -> Change:
    """``struct fuse_setattr_in`` of a request that came now."""
    moment = now()
    valid, size, seconds, mseconds, nanoseconds, mnanoseconds, mode, uid, gid = struct.unpack_from(
        "=40xI4x8xQ8xqq8xII4xI4xII", data
    )
    return Change(
        mode if valid & 1 else None,
        uid if valid & 1 << 1 else None,
        gid if valid & 1 << 2 else None,
        size if valid & 1 << 3 else None,
        bool(valid & 1 << 3 and not valid & 1 << 6),
        moment if valid & 1 << 7 else (seconds, nanoseconds) if valid & 1 << 4 else None,
        moment if valid & 1 << 8 else (mseconds, mnanoseconds) if valid & 1 << 5 else None,
    )


def now() -> tuple[int, int]:
    """Seconds and nanoseconds, as current_time() of the kernel: those of its last tick."""
    return divmod(clock_gettime_ns(CLOCK_REALTIME_COARSE), 1_000_000_000)


def times_now() -> bytes:
    """atime, mtime and ctime of what has come to be now."""
    return _times_at(clock_gettime_ns(CLOCK_REALTIME_COARSE))


@lru_cache(maxsize=1)
def _times_at(moment: int) -> bytes:
    seconds, nanoseconds = divmod(moment, 1_000_000_000)
    return _times.pack(seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds)


def encoded(name: str) -> bytes:
    """A name of the tree as the kernel has it."""
    return name.encode("utf-8", "surrogateescape")


# --- directories ----------------------------------------------------------------------

_DIRENT = struct.Struct("=QII")
DIRENT_HEAD = 8
pack_ino = struct.Struct("=Q").pack
"""The first bytes of ``struct fuse_dirent``."""


def dirent(name: bytes, kind: int, after: int) -> bytes:
    """``struct fuse_dirent`` but for the inode number: type (``S_IFREG``…) and d_off of an entry, its padded name."""
    return _DIRENT.pack(after, len(name), kind >> 12) + name + bytes(-len(name) % 8)
