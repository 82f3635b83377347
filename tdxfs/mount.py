"""The FUSE mount: libfuse's callbacks to a `Tree`. The only module that imports `fuse`.

fusepy's own methods turn every struct stat into a dict and every unknown exception into EINVAL.
`Server` overrides the ones that matter with what sysfs does: stat bytes are prepared once per path, an
open owns its text, which is made anew by each read at offset 0, and a bug is logged and answered EIO.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import stat
import struct
import sys
import tempfile
import time
import traceback
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import tdxfs.server  # noqa: F401  before fuse: it says which libfuse

import fuse  # isort: skip

from tdxfs.errors import UserError
from tdxfs.sysfs.attribute import Directory, Entry, File, Link, Reader
from tdxfs.tree import Entries, Tree, content, inode_number

PAGE_SIZE = 4096
CACHED_PATHS = 65536
CACHED_NAMES = 4096
"""A directory with more is listed anew each time."""
FOREVER = 3600
DOT_OFFSET = 1
"""d_off of ``.``, as kernfs."""

_STAT_SIZE = ctypes.sizeof(fuse.c_stat)


def _field(name: str) -> tuple[struct.Struct, int]:
    column = getattr(fuse.c_stat, name)
    return struct.Struct({4: "=I", 8: "=q"}[column.size]), column.offset


_INO, _NLINK, _MODE, _UID, _GID, _RDEV, _SIZE, _BLKSIZE = (
    _field(f"st_{name}") for name in ("ino", "nlink", "mode", "uid", "gid", "rdev", "size", "blksize")
)
_TIMES = struct.Struct("=6q"), fuse.c_stat.st_atimespec.offset
"""Seconds and nanoseconds of atime, mtime and ctime."""


@lru_cache(maxsize=4096)
def _shape(mode: int, nlink: int, size: int, rdev: int, uid: int, gid: int) -> bytes:
    # the part of struct stat that many files share
    buffer = bytearray(_STAT_SIZE)
    values = (mode, nlink, size, rdev, uid, gid, PAGE_SIZE)
    for (form, offset), value in zip((_MODE, _NLINK, _SIZE, _RDEV, _UID, _GID, _BLKSIZE), values, strict=True):
        form.pack_into(buffer, offset, value)
    return bytes(buffer)


_Row: TypeAlias = tuple[bytes, int, int, int]


def _rows(here: str, listing: Entries, offset: int) -> Iterator[_Row]:
    # name, type, inode number and d_off, as filler() takes them
    below = here + "/"
    for name, kind, after in listing.following(offset):
        yield name.encode("utf-8", "surrogateescape"), kind, inode_number(below + name), after


def _owner() -> tuple[int, int]:
    # root, but in a user namespace that has no root nobody may write to root's files: there the user owns them
    with open("/proc/self/uid_map", encoding="ascii") as file:
        if any(line.split()[0] == "0" for line in file):
            return 0, 0
    return os.geteuid(), os.getegid()


def _is_of_tasks(entry: Entry | None) -> bool:
    return type(entry).OF_TASKS if isinstance(entry, Directory) else isinstance(entry, File) and entry.sampled


class _Open:
    """One open file description and the text it reads."""

    __slots__ = ("at", "data", "file", "generation", "nonblocking", "passing", "plain", "told")

    def __init__(self, file: File, generation: int, nonblocking: bool) -> None:
        self.file = file
        self.plain = file.reader is Reader.TEXT and not file.sampled
        self.generation = generation
        self.nonblocking = nonblocking
        self.data: bytes | None = None
        self.at = 0
        self.passing = False
        self.told = 0


class _Selected:
    """Which operations libfuse is given; the others it answers ENOSYS, once."""

    use_ns = True
    getattr = readlink = mknod = mkdir = unlink = rmdir = symlink = rename = link = True
    chmod = chown = truncate = open = read = write = statfs = release = readdir = init = create = utimens = True


class Server(fuse.FUSE):  # type: ignore[misc]
    """A mounted tree. Constructing it serves until the mount is gone."""

    def __init__(self, tree: Tree, mountpoint: str, ready: Callable[[], None], **options: Any) -> None:
        self.tree = tree
        self.ready = ready
        self.owner = _owner()
        self.paths: dict[bytes, tuple[bytes, Entry]] = {}
        self.directories: dict[str, Directory[Any]] = {}
        self.listings: dict[str, Entries] = {}
        self.rows: dict[str, list[_Row]] = {}
        self.texts: dict[File, bytes] = {}
        self.kept: dict[bytes, dict[str, Any]] = {}
        self.generation = tree.generation
        self.handles: dict[int, _Open] = {}
        self.next_handle = 0
        super().__init__(_Selected(), mountpoint, encoding="utf-8", **options)

    @staticmethod
    def _wrapper(func: Callable[..., int], *args: Any) -> int:
        try:
            return func(*args)
        except OSError as error:
            if error.errno is not None and error.errno > 0:
                return -error.errno
            traceback.print_exc()
        except BaseException:  # ctypes would swallow it and libfuse would read a random number
            traceback.print_exc()
        sys.stderr.flush()
        return -errno.EIO

    # --- paths ------------------------------------------------------------------------

    def _find(self, path: bytes) -> tuple[bytes, Entry] | None:
        if self.generation != self.tree.generation:
            self.generation = self.tree.generation
            self._forget()
        return self.paths.get(path) or self._look_up(path)

    def _look_up(self, path: bytes) -> tuple[bytes, Entry] | None:
        text = path.decode("utf-8", "surrogateescape")
        entry, passing = self._entry(text)
        if entry is None:
            return None
        known = (self._stat(text, path, entry), entry)
        if passing:
            return known
        if len(self.paths) >= CACHED_PATHS:
            self._forget()
        self.paths[path] = known
        return known

    def _forget(self) -> None:
        self.paths.clear()
        self.directories.clear()
        self.listings.clear()
        self.rows.clear()
        self.texts.clear()

    def _entry(self, text: str) -> tuple[Entry | None, bool]:
        # the entry at a path, and whether it passes: a change of the machine's tasks makes it another one
        parent, _, name = text.rpartition("/")
        directory = self.directories.get(parent) or self._directory(parent)
        if directory is None or not name:
            return directory, False
        entry = directory.lookup(name, self.tree.tiers)
        passing = type(directory).OF_TASKS or _is_of_tasks(entry)
        if passing and directory.machine is not self.tree.machine:
            now = type(directory)(directory.path, self.tree.machine, directory.key)
            entry = now.lookup(name, self.tree.tiers)
        return entry, passing

    def _directory(self, text: str) -> Directory[Any] | None:
        # the directory at a path without a slash at its end: "" is the root
        found = self.directories.get(text)
        if found is None:
            entry, passing = self._entry(text) if text else (self.tree.root, False)
            if not isinstance(entry, Directory):
                return None
            found = entry
            if not passing:
                self.directories[text] = entry
        return found

    def _stat(self, text: str, path: bytes, entry: Entry) -> bytes:
        if isinstance(entry, Directory):
            mode, size, rdev, nlink = entry.MODE, 0, 0, entry.nlink(self.tree.tiers)
        else:
            mode, size, rdev, nlink = entry.mode, entry.size, entry.rdev, 1
        uid, gid = self.owner
        now = divmod(time.time_ns(), 1_000_000_000)
        times = (*now, *now, *now)
        if path in self.kept:
            kept = self.kept[path]
            mode, uid, gid = kept.get("mode", mode), kept.get("uid", uid), kept.get("gid", gid)
            times = kept.get("times", times)
        buffer = bytearray(_shape(mode, nlink, size, rdev, uid, gid))
        _INO[0].pack_into(buffer, _INO[1], inode_number(text))
        _TIMES[0].pack_into(buffer, _TIMES[1], *times)
        return bytes(buffer)

    def _keep(self, path: bytes, **what: Any) -> int:
        # kernfs keeps what chmod, chown and utimes set for as long as the object lives
        self.kept.setdefault(path, {}).update(what)
        self.paths.pop(path, None)
        return 0

    # --- what is asked all the time ---------------------------------------------------

    def getattr(self, path: bytes, buf: Any) -> int:
        if self.generation == self.tree.generation:
            known = self.paths.get(path) or self._look_up(path)
        else:
            known = self._find(path)
        if known is None:
            return -errno.ENOENT
        ctypes.memmove(buf, known[0], _STAT_SIZE)
        return 0

    def fgetattr(self, path: bytes, buf: Any, fip: Any) -> int:
        return self.getattr(path, buf)

    def open(self, path: bytes, fip: Any) -> int:
        known = self._find(path)
        if known is None:
            return -errno.ENOENT
        file = known[1]
        assert isinstance(file, File)
        info = fip.contents
        flags = info.flags
        mode = self.kept[path].get("mode", file.mode) if path in self.kept else file.mode
        access = flags & 3
        # a file without the bit cannot be opened so even by root (KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK)
        if (access in (0, 2) and not mode & 0o444) or (access in (1, 2) and not mode & 0o222):
            return -errno.EACCES
        if flags & os.O_DIRECT:
            return -errno.EINVAL
        handle = self.next_handle = self.next_handle + 1
        opened = self.handles[handle] = _Open(file, self.generation, bool(flags & os.O_NONBLOCK))
        opened.passing, opened.told = path not in self.paths, self.tree.told
        info.fh = handle
        return 0

    def read(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
        handle = self.handles[fip.contents.fh]
        data = handle.data
        if not handle.plain and handle.file.sampled and (offset == 0 or data is None):
            self.tree.sample()
        stale = handle.generation != self.tree.generation or (handle.passing and handle.told != self.tree.told)
        if stale and not self._renew(handle, path):
            return -errno.ENODEV
        if not handle.plain and handle.file.reader is Reader.RECORDS:
            return self._read_record(handle, buf, size)
        if offset == 0 or data is None:
            data = handle.data = content(handle.file) if handle.passing else self._text(handle.file)
        length = len(data)
        if not handle.plain and handle.file.reader is Reader.CPUMASK:
            # cpumap_print_to_pagebuf(): every read ends one byte early, and past the end is EPERM
            if offset >= handle.file.size:
                return 0
            if offset > length:
                return -errno.EPERM
            size = min(size, length + 1 - offset) - 1
        if offset >= length or size <= 0:
            return 0
        if offset or size < length:
            data = data[offset : offset + size]
            length = len(data)
        ctypes.memmove(buf, data, length)
        return length

    def _text(self, file: File) -> bytes:
        # a machine never changes: what one of its files shows is shown once, unless it is made of the host's
        if file.sources:
            return content(file)
        text = self.texts.get(file)
        if text is None:
            text = self.texts[file] = content(file)
        return text

    def _renew(self, handle: _Open, path: bytes) -> bool:
        # the machine has changed: what an open file shows next is the new one's, if it is still there
        known = self._find(path)
        if known is None or not isinstance(known[1], File):
            return False
        handle.file, handle.generation, handle.told = known[1], self.generation, self.tree.told
        return True

    def _read_record(self, handle: _Open, buf: Any, size: int) -> int:
        data = handle.file.show()
        if handle.at >= len(data):
            return -errno.EAGAIN if handle.nonblocking else 0
        end = data.index(b"\n", handle.at) + 1
        while data[end : end + 1] == b" ":
            end = data.index(b"\n", end) + 1
        if end - handle.at > size:
            return -errno.EINVAL
        part = data[handle.at : end]
        handle.at = end
        ctypes.memmove(buf, part, len(part))
        return len(part)

    def release(self, path: bytes, fip: Any) -> int:
        del self.handles[fip.contents.fh]
        return 0

    def readlink(self, path: bytes, buf: Any, size: int) -> int:
        known = self._find(path)
        if known is None:
            return -errno.ENOENT
        assert isinstance(known[1], Link)
        target = known[1].target.encode("utf-8", "surrogateescape")[: size - 1] + b"\0"
        ctypes.memmove(buf, target, len(target))
        return 0

    def readdir(self, path: bytes, buf: Any, filler: Any, offset: int, fip: Any) -> int:
        known = self._find(path)
        if known is None or not isinstance(known[1], Directory):
            return -errno.ENOENT
        here = known[1].path
        passing = type(known[1]).OF_TASKS
        listing = None if passing else self.listings.get(here)
        if listing is None:
            listing = self._list(known[1])
            if not passing:
                self.listings[here] = listing
        entry = fuse.c_stat()
        seen = ctypes.pointer(entry)
        if offset == 0:
            entry.st_mode, entry.st_ino = stat.S_IFDIR, inode_number(here or "/")
            if filler(buf, b".", seen, DOT_OFFSET):
                return 0
        if offset <= DOT_OFFSET:
            entry.st_mode, entry.st_ino = stat.S_IFDIR, inode_number(here.rpartition("/")[0] or "/")
            if filler(buf, b"..", seen, listing.first):
                return 0
        for name, entry.st_mode, entry.st_ino, after in self._rows(here, listing, max(offset, 2), passing):
            if filler(buf, name, seen, after):
                return 0
        if len(listing.names) > CACHED_NAMES and not passing:
            del self.listings[here]
        return 0

    def _list(self, directory: Directory[Any]) -> Entries:
        if len(self.listings) >= CACHED_PATHS // 16:
            self.listings.clear()
            self.rows.clear()
        return self.tree.entries(directory)

    def _rows(self, here: str, listing: Entries, offset: int, passing: bool) -> Iterable[_Row]:
        if passing or len(listing.names) > CACHED_NAMES:
            return _rows(here, listing, offset)
        rows = self.rows.get(here)
        if rows is None:
            rows = self.rows[here] = list(_rows(here, listing, 2))
        return rows if offset == 2 else rows[bisect_left(listing.offsets, offset) :]

    # --- what sysfs refuses, and how ---------------------------------------------------

    def write(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
        # one write is one store, whatever the offset, and a page of it at most
        return self.tree.write(path.decode("utf-8", "surrogateescape"), ctypes.string_at(buf, min(size, PAGE_SIZE)))

    def create(self, path: bytes, mode: int, fip: Any) -> int:
        return -errno.EACCES

    def mknod(self, path: bytes, mode: int, dev: int) -> int:
        return -errno.EACCES if stat.S_ISREG(mode) else -errno.EPERM

    def _not_permitted(self, *_: Any) -> int:
        return -errno.EPERM

    mkdir = unlink = rmdir = symlink = rename = link = _not_permitted

    def truncate(self, path: bytes, length: int) -> int:
        # the size stays; O_TRUNC arrives as this, and sets every time to now
        now = divmod(time.time_ns(), 1_000_000_000)
        return self._keep(path, times=(*now, *now, *now))

    def ftruncate(self, path: bytes, length: int, fip: Any) -> int:
        return 0

    def chmod(self, path: bytes, mode: int) -> int:
        return self._keep(path, mode=mode)

    def chown(self, path: bytes, uid: int, gid: int) -> int:
        unset = 0xFFFFFFFF
        new = {name: number for name, number in (("uid", uid), ("gid", gid)) if number & unset != unset}
        return self._keep(path, **new)

    def utimens(self, path: bytes, buf: Any) -> int:
        now = divmod(time.time_ns(), 1_000_000_000)
        times = (*now, *now)
        if buf:
            both = (buf.contents.actime, buf.contents.modtime)
            times = (both[0].tv_sec, both[0].tv_nsec, both[1].tv_sec, both[1].tv_nsec)
        return self._keep(path, times=(*times, *now))

    def statfs(self, path: bytes, buf: Any) -> int:
        buf.contents.f_bsize = buf.contents.f_frsize = PAGE_SIZE
        buf.contents.f_namemax = 255
        return 0

    def init(self, conn: Any) -> int:
        self.ready()
        return 0


def serve(tree: Tree, mountpoint: str, ready: Callable[[], None]) -> None:
    """
    Serve `tree` at `mountpoint` until it is unmounted or the process gets SIGTERM or
    SIGINT; `ready` is called once the kernel has begun to talk to us. UserError if libfuse cannot mount.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # what is kept for the paths looked at makes no cycles
    everybody = {"allow_other": True} if os.geteuid() == 0 else {}
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:  # by libfuse and fusermount: the reason, if they cannot mount
        os.dup2(said.fileno(), 2)

        def mounted() -> None:
            os.dup2(stderr, 2)
            ready()

        try:
            Server(
                tree,
                mountpoint,
                mounted,
                foreground=True,
                nothreads=True,
                direct_io=True,
                default_permissions=True,
                use_ino=True,
                entry_timeout=FOREVER,
                attr_timeout=FOREVER,
                negative_timeout=FOREVER,
                fsname="tdxfs",
                subtype="tdxfs",
                **everybody,
            )
        except RuntimeError as error:
            said.seek(0)
            reason = "; ".join(said.read().decode("utf-8", "replace").split("\n")[:-1])
            raise UserError(f"{mountpoint}: libfuse cannot mount here: {reason or error}") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
