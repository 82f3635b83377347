"""The FUSE mount: libfuse's callbacks to a `Tree`.

fusepy's own methods turn every struct stat into a dict and every unknown exception into EINVAL.
`Server` answers as sysfs does: stat bytes are prepared once per path, an open owns its text, which
is made anew by each read at offset 0, and a bug is logged and answered EIO.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import select
import stat
import sys
import tempfile
import time
import traceback
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, TypeAlias

from attrs import define

from tdxfs.cached import Cached
from tdxfs.caller import Caller
from tdxfs.descriptors import Descriptor
from tdxfs.errors import UserError
from tdxfs.faults import Faults
from tdxfs.fuse_abi import GETATTR, LOOKUP, Session, attributes, c_stat, caller, drop, missing, wake
from tdxfs.kvm import Call, Kvm
from tdxfs.model import Machine
from tdxfs.notifier import Notifier
from tdxfs.stats import STAT_SIZE, Parts, now, owner, pack_stat, parts_of
from tdxfs.sysfs.attribute import Directory, Entry, File, Link, Reader, Shape, fixed
from tdxfs.sysfs.debug import FAULTS_PATH
from tdxfs.tree import LAST_OFFSET, Entries, Tree, content, inode_number

PAGE_SIZE = 4096
CACHED_PATHS = 65536
CACHED_NAMES = 4096
"""A directory with more is listed anew each time."""
FOREVER = 3600
MISSING = missing(FOREVER)
IOC_SIZE_SHIFT, IOC_SIZE_MASK = 16, 0x3FFF
"""Where the number of an ioctl says how large its struct is."""
READABLE = select.POLLIN | select.POLLRDNORM
DOT_OFFSET = 1
"""d_off of ``.``, as kernfs."""


@define(eq=False)
class _Place:
    """A directory that names are looked up in, as long as the machine stays the same."""

    below: bytes
    """Its path and a slash."""
    directory: Directory[Any]
    declared: dict[bytes, tuple[Parts | None, Callable[[Any], bool]]]
    """`Shapes.declared`"""
    families: tuple[tuple[Callable[[Any, str], Any], Parts | None], ...]
    """`Shapes.families`"""


_NOWHERE: tuple[None, Callable[[Any], bool]] = (None, lambda _: False)
_Row: TypeAlias = tuple[bytes, int, int, int]


def _rows(here: str, listing: Entries, offset: int) -> Iterator[_Row]:
    # name, type, inode number and d_off, as filler() takes them
    below = here + "/"
    for name, kind, after in listing.following(offset):
        yield name.encode("utf-8", "surrogateescape"), kind, inode_number(below + name), after


def _is_of_tasks(entry: Entry | None) -> bool:
    return type(entry).OF_TASKS if isinstance(entry, Directory) else isinstance(entry, File) and entry.sampled


class _Open:
    """One open description, and the text it reads; `file` is None of a directory and of an object that is gone."""

    __slots__ = (
        "at",
        "data",
        "file",
        "generation",
        "gone",
        "kvm",
        "memory",
        "nonblocking",
        "passing",
        "path",
        "plain",
        "stat",
        "told",
        "unseen",
        "waiter",
    )  # fmt: skip

    def __init__(self, path: bytes, stat: bytes, file: File | None, generation: int, nonblocking: bool = False) -> None:
        self.path = path
        self.stat = stat
        self.file = file
        self.plain = file is not None and file.reader is Reader.TEXT and not file.sampled
        self.generation = generation
        self.nonblocking = nonblocking
        self.gone = False
        self.data: bytes | None = None
        self.at = file.records().first if file is not None and file.records is not None else 0
        # for poll(2): whether there has been an event since the last read, and who waits for one
        self.unseen = True
        self.waiter: int | None = None
        self.passing = False
        self.told = 0
        self.memory: IO[bytes] | None = None
        self.kvm: Descriptor | None = None


OPERATIONS = (
    "getattr fgetattr readlink mknod mkdir symlink link chmod chown truncate ftruncate open "
    "write ioctl poll statfs opendir readdir releasedir init create utimens"
).split()
"""Which operations libfuse is given; the others it answers ENOSYS, once."""


class Server:
    """A mounted tree."""

    def __init__(self, tree: Tree, mountpoint: str, ready: Callable[[], None], options: str) -> None:
        self.tree = tree
        self.ready = ready
        self.owner = owner()
        self.paths: dict[bytes, tuple[bytes, Entry]] = {}
        self.stats: dict[bytes, bytes] = {}
        self.shapes: dict[type, tuple[Any, Any] | None] = {}
        # by the kernel's node number: directories, files that were opened, and what was said of them
        self.places: dict[int, _Place] = {}
        self.nodes: dict[int, bytes] = {}
        self.attributes: dict[int, bytes] = {}
        self.directories: dict[str, Directory[Any]] = {}
        self.listings: dict[str, Entries] = {}
        self.rows: dict[str, list[_Row]] = {}
        self.texts: dict[File, bytes] = {}
        self.kept: dict[bytes, dict[str, Any]] = {}
        self.generation = tree.generation
        self.handles: dict[int, _Open] = {}
        self.next_handle = 0
        self.memories: dict[bytes, IO[bytes]] = {}
        self.kvm = Kvm(tree, mountpoint)
        self.cached = Cached(tree.tiers)
        self.faults = Faults(tree.machine.faults) if tree.machine.faults else None
        self.vanished: set[bytes] = set()
        handlers = {name: self._guarded(getattr(self, name)) for name in OPERATIONS}
        self.session = Session(handlers, self, ("tdxfs", "-f", "-s", "-o", options, mountpoint))

    def serve(self) -> None:
        """Serve until the mount is gone."""
        self.notifier = Notifier(self.session)
        self.tree.watchers.append(self._changed)
        self.session.serve()

    def _guarded(self, function: Callable[..., int]) -> Callable[..., int]:
        def answer(*arguments: Any) -> int:
            try:
                return function(*arguments)
            except BaseException:  # ctypes would swallow it and libfuse would read a random number
                return self._failed()

        return answer

    @staticmethod
    def _failed() -> int:
        # what the emulated kernel refuses has an errno; anything else is a bug
        error = sys.exception()
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            return -error.errno
        traceback.print_exc()
        sys.stderr.flush()
        return -errno.EIO

    # --- paths ------------------------------------------------------------------------

    def _catch_up(self) -> None:
        if self.generation != self.tree.generation:
            self.generation = self.tree.generation
            self._forget()

    def _find(self, path: bytes) -> tuple[bytes, Entry] | None:
        self._catch_up()
        return self.paths.get(path) or self._look_up(path)

    def _look_up(self, path: bytes) -> tuple[bytes, Entry] | None:
        if self.vanished and any(above.encode("utf-8", "surrogateescape") in self.vanished for above in _upwards(path)):
            return None
        text = path.decode("utf-8", "surrogateescape")
        entry, passing = self._entry(text)
        if entry is None:
            return None
        if passing:
            return self._stat(text, path, entry), entry
        known = (self.stats.get(path) or self._stat(text, path, entry), entry)
        if len(self.stats) >= CACHED_PATHS:
            self._forget()
        self.paths[path] = known
        self.stats[path] = known[0]
        return known

    def _forget(self) -> None:
        self.paths.clear()
        self.stats.clear()
        self.shapes.clear()
        self.places.clear()
        self.attributes.clear()
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
        moment = now()
        times = (*moment, *moment, *moment)
        if path in self.kept:
            kept = self.kept[path]
            mode, uid, gid = kept.get("mode", mode), kept.get("uid", uid), kept.get("gid", gid)
            times = kept.get("times", times)
        head, middle, tail = parts_of(mode, nlink, size, rdev, uid, gid)
        return pack_stat(head, inode_number(text), middle, *times, tail)

    def _keep(self, path: bytes, **what: Any) -> int:
        # kernfs keeps what chmod, chown and utimes set for as long as the object lives
        self.kept.setdefault(path, {}).update(what)
        self.paths.pop(path, None)
        self.stats.pop(path, None)
        self.attributes.clear()
        return 0

    # --- when the machine changes -------------------------------------------------------

    def _changed(self, old: Machine, new: Machine) -> None:
        stale = self.cached.change(self.tree.root_of(old), self.tree.root_of(new))
        if stale.gone:
            for handle in list(self.handles.values()):
                if not stale.gone.isdisjoint(_upwards(handle.path)):
                    handle.gone, handle.file, handle.data = True, None, None
            for path in list(self.kept):
                if not stale.gone.isdisjoint(_upwards(path)):
                    del self.kept[path]
        self.notifier.post(stale)
        self._notify(old, new)
        if old.faults != new.faults:
            self.faults = Faults(new.faults) if new.faults else None

    def _fail(self, access: str, path: bytes) -> int | None:
        # what the faults in force do to an access: OSError, a delay, or how many bytes a read gives at most
        text = path.decode("utf-8", "surrogateescape")[1:]
        short = None
        for fault in self.faults.due(access, text) if self.faults is not None and text != FAULTS_PATH else ():
            time.sleep(fault.delay)
            if fault.errno:
                raise OSError(fault.errno, os.strerror(fault.errno))
            short = fault.short if short is None else short
        return short

    def _fail_listing(self, path: bytes, directory: Directory[Any]) -> None:
        # what had vanished is back, and what vanishes now is still named; told before the kernel locks the directory
        self._fail("list", path)
        listing = self._listing(directory)
        below = path.rstrip(b"/") + b"/"
        back = {name for name in self.vanished if name.startswith(below) and b"/" not in name[len(below) :]}
        names = [below + name.encode("utf-8", "surrogateescape") for name in listing.names]
        lost = {name for name in names if self.faults is not None and self.faults.vanishes(os.fsdecode(name[1:]))}
        self.vanished = self.vanished - back | lost
        self._forget()
        self.notifier.post(self.cached.names(path.rstrip(b"/"), [name[len(below) :] for name in back | lost]))
        self.notifier.settle()

    def _ghost(self, path: bytes) -> bytes | None:
        # fstat(2) of an object that is gone goes on to say what it said last
        return next((handle.stat for handle in self.handles.values() if handle.gone and handle.path == path), None)

    # --- what is asked all the time ---------------------------------------------------

    def look_for(self, nodeid: int, name: bytes) -> bytes | None:
        """What there is to be said of a name before libfuse makes a node of it: that it is not there."""
        try:
            place = self.places.get(nodeid)
            if place is None or self.generation != self.tree.generation or self.vanished:
                return None
            path = place.below + name
            if path in self.stats:
                return None
            there = self._quickly(place, name, path)
            if there is None:
                there = self._look_up(path) is not None
            return None if there else MISSING
        except BaseException:
            self._failed()  # libfuse asks again, and is told
        return None

    def _quickly(self, place: _Place, name: bytes, path: bytes) -> bool | None:
        # whether a name is there, without making its entry; then also what stat(2) says of it. None: not known so
        if path in self.kept or len(self.stats) >= CACHED_PATHS:
            return None
        parts, there = place.declared.get(name, _NOWHERE)
        directory, text = place.directory, name.decode("utf-8", "surrogateescape")
        if not there(directory):
            for find, shape in place.families:
                if find(directory, text) is not None:
                    parts = shape
                    break
            else:
                return False
        if parts is None:
            return None
        head, middle, tail = parts
        moment = now()
        number = inode_number(f"{directory.path}/{text}")
        self.stats[path] = pack_stat(head, number, middle, *moment, *moment, *moment, tail)
        return True

    def attributes_of(self, nodeid: int) -> bytes | None:
        return self.attributes.get(nodeid) if self.generation == self.tree.generation else None

    def getattr(self, path: bytes, buf: Any) -> int:
        opcode, nodeid = self.session.header()
        self._catch_up()
        if opcode == LOOKUP and nodeid not in self.places:
            self._looked_up(path, nodeid)
        said = self.stats.get(path)
        if said is None:
            known = self._find(path)
            said = known[0] if known is not None else None if opcode == LOOKUP else self._ghost(path)
            if said is None:
                return -errno.ENOENT
        elif opcode == GETATTR and nodeid in self.nodes:
            self.attributes[nodeid] = attributes(said, FOREVER)
        ctypes.memmove(buf, said, STAT_SIZE)
        return 0

    def _looked_up(self, path: bytes, nodeid: int) -> None:
        # before the tree is asked: a change that comes between is told to the kernel after this answer
        parent, _, name = path.rpartition(b"/")
        directory = None if self.vanished else self._directory(parent.decode("utf-8", "surrogateescape"))
        cls = None if directory is None else type(directory)
        if cls is None or not fixed(cls):
            self.cached.looked_up(parent, nodeid, name, cls)
        if directory is not None and not (directory.FLEETING or directory.OF_TASKS):
            shapes = self._shapes(directory)
            if shapes is not None:
                place = self.places[nodeid] = _Place(parent + b"/", directory, *shapes)
                if path not in self.stats:
                    self._quickly(place, name, path)

    def _shapes(self, directory: Directory[Any]) -> tuple[Any, Any] | None:
        cls = type(directory)
        if cls not in self.shapes:
            shapes = directory.shapes(self.tree.tiers)
            self.shapes[cls] = (
                None
                if shapes is None
                else (
                    {name.encode(): (self._parts(shape), there) for name, (shape, there) in shapes.declared.items()},
                    tuple((find, self._parts(shape)) for find, shape in shapes.families),
                )
            )
        return self.shapes[cls]

    def _parts(self, shape: Shape | None) -> Parts | None:
        return None if shape is None else parts_of(shape.mode, shape.nlink, shape.size, 0, *self.owner)

    def fgetattr(self, path: bytes, buf: Any, fip: Any) -> int:
        return self.getattr(path, buf)

    def open(self, path: bytes, fip: Any) -> int:
        info = fip.contents
        number = self._open(path, info.flags)
        if number < 0:
            return number
        info.fh = number
        if self.handles[number].memory is not None:
            return 0  # only what the page cache holds can be mapped MAP_SHARED
        info.direct_io = True
        if len(self.nodes) >= CACHED_PATHS:
            self.nodes.clear()
        self.nodes[self.session.header()[1]] = path
        return 0

    def open_again(self, nodeid: int, flags: int) -> int | None:
        path = self.nodes.get(nodeid)
        try:
            return None if path is None else self._open(path, flags)
        except BaseException:
            return self._failed()

    def _open(self, path: bytes, flags: int) -> int:
        # a handle, or a negative errno
        known = self._find(path)
        if known is None:
            return -errno.ENOENT
        file = known[1]
        assert isinstance(file, File)
        mode = self.kept[path].get("mode", file.mode) if path in self.kept else file.mode
        access = flags & 3
        # a file without the bit cannot be opened so even by root (KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK)
        if (access in (0, 2) and not mode & 0o444) or (access in (1, 2) and not mode & 0o222):
            return -errno.EACCES
        if flags & os.O_DIRECT:
            return -errno.EINVAL
        if file.may_open is not None:
            file.may_open()
        if self.faults is not None:
            self._fail("open", path)
        opened = _Open(path, known[0], file, self.generation, bool(flags & os.O_NONBLOCK))
        opened.passing, opened.told = path not in self.paths, self.tree.told
        if file.reader is Reader.KVM:
            opened.kvm = Descriptor()
        elif file.reader is Reader.MEMORY and access == os.O_RDWR:
            opened.memory = self._memory(path)
        return self._handle(opened)

    def _memory(self, path: bytes) -> IO[bytes]:
        # what was written to a device, for as long as the mount
        if path not in self.memories:
            self.memories[path] = tempfile.TemporaryFile(prefix="tdxfs-", buffering=0)  # noqa: SIM115
        return self.memories[path]

    def _handle(self, opened: _Open) -> int:
        handle = self.next_handle = self.next_handle + 1
        self.handles[handle] = opened
        return handle

    def opendir(self, path: bytes, fip: Any) -> int:
        known = self._find(path)
        if known is None:
            return -errno.ENOENT
        if self.faults is not None and isinstance(known[1], Directory):
            self._fail_listing(path, known[1])
        fip.contents.fh = self._handle(_Open(path, known[0], None, self.generation))
        return 0

    def read(self, handle: int, size: int, offset: int) -> bytes | int:
        """One read(2) of an open file: the data, or a negative errno."""
        try:
            return self._read(self.handles[handle], size, offset)
        except BaseException:
            return self._failed()

    def _read(self, handle: _Open, size: int, offset: int) -> bytes | int:
        if handle.memory is not None and handle.file is not None:
            return os.pread(handle.memory.fileno(), size, offset).ljust(min(size, handle.file.size - offset), b"\0")
        data = handle.data
        if not handle.plain and handle.file is not None and handle.file.sampled and (offset == 0 or data is None):
            self.tree.sample()
        if handle.generation != self.tree.generation or (handle.passing and handle.told != self.tree.told):
            self._renew(handle)
        file = handle.file
        if file is None:
            return -errno.ENODEV
        if self.faults is not None:
            short = self._fail("read", handle.path)
            size = size if short is None else min(size, short)
        if not handle.plain and file.reader is Reader.RECORDS:
            return self._read_record(handle, file, size)
        if offset == 0 or data is None:
            handle.unseen = False
            data = handle.data = content(file) if handle.passing else self._text(file)
        if not handle.plain and file.reader is Reader.CPUMASK:
            # cpumap_print_to_pagebuf(): every read ends one byte early, and past the end is EPERM
            if offset >= file.size:
                return b""
            if offset > len(data):
                return -errno.EPERM
            size = min(size, len(data) + 1 - offset) - 1
        return data[offset : offset + size] if offset or size < len(data) else data

    def _text(self, file: File) -> bytes:
        # a machine never changes: what one of its files shows is shown once, unless it is made of the host's
        if file.sources:
            return content(file)
        text = self.texts.get(file)
        if text is None:
            text = self.texts[file] = content(file)
        return text

    def _renew(self, handle: _Open) -> None:
        # the machine has changed: what an open file shows next is the new one's, if it is still there
        known = None if handle.gone else self._find(handle.path)
        handle.file = known[1] if known is not None and isinstance(known[1], File) else None
        handle.gone = handle.file is None
        handle.generation, handle.told = self.generation, self.tree.told

    def _read_record(self, handle: _Open, file: File, size: int) -> bytes | int:
        assert file.records is not None
        records = file.records()
        handle.at = min(handle.at, records.end)  # after a reboot they begin anew
        if handle.at < records.first:  # those that it had not read yet are gone
            handle.at = records.first
            return -errno.EPIPE
        if handle.at >= records.end:
            return -errno.EAGAIN if handle.nonblocking else b""
        part = records.text(handle.at).encode()
        if len(part) > size:
            return -errno.EINVAL
        handle.at += 1
        return part

    def poll(self, path: bytes, fip: Any, waiter: int | None, events: Any) -> int:
        handle = self.handles[fip.contents.fh]
        if waiter is not None:  # before the events: one that comes between finds who waits
            handle.waiter, before = waiter, handle.waiter
            if before is not None:
                drop(before)
        events[0] = self._events(handle)
        return 0

    def _events(self, handle: _Open) -> int:
        # kernfs_generic_poll(): readable always; an event since the last read, also none read yet, is POLLPRI
        if handle.generation != self.tree.generation or (handle.passing and handle.told != self.tree.told):
            self._renew(handle)
        if handle.file is None:
            return select.POLLIN | select.POLLPRI | select.POLLERR
        if handle.file.records is not None:
            return READABLE if handle.at < handle.file.records().end else 0
        always = READABLE | select.POLLOUT | select.POLLWRNORM
        return always | select.POLLPRI | select.POLLERR if handle.unseen else always

    def _notify(self, old: Machine, new: Machine) -> None:
        # sysfs_notify() of what shows another value now, and a wake-up where a record has come
        for handle in list(self.handles.values()):
            file = handle.file
            if not handle.gone:
                if file is None or not (file.notifies or file.records):
                    continue
                text = handle.path.decode("utf-8", "surrogateescape")
                was, now = (self._file(machine, text) for machine in (old, new))
                if now is not None and was is not None:
                    if now.records is not None and was.records is not None:
                        if now.records().end == was.records().end:
                            continue
                    elif now.show() == was.show():
                        continue
                    handle.unseen = True
            waiter, handle.waiter = handle.waiter, None
            if waiter is not None:
                wake(waiter)

    def _file(self, machine: Machine, path: str) -> File | None:
        entry: Entry | None = self.tree.root_of(machine)
        for name in path.split("/")[1:]:
            entry = entry.lookup(name, self.tree.tiers) if isinstance(entry, Directory) else None
        return entry if isinstance(entry, File) else None

    def release_handle(self, handle: int) -> int:
        """The end of an open description: 0, or a negative errno that nobody sees."""
        try:
            opened = self.handles.pop(handle)
            if opened.waiter is not None:
                drop(opened.waiter)
            if opened.kvm is not None:
                try:
                    self.kvm.release(opened.kvm)
                finally:
                    self.notifier.settle()
        except BaseException:
            return self._failed()
        return 0

    def releasedir(self, path: bytes, fip: Any) -> int:
        return self.release_handle(fip.contents.fh)

    def ioctl(self, path: bytes, number: int, argument: int | None, fip: Any, flags: int, data: int | None) -> int:
        descriptor = self.handles[fip.contents.fh].kvm
        if descriptor is None:
            return -errno.ENOTTY
        size = number >> IOC_SIZE_SHIFT & IOC_SIZE_MASK
        struct_in = ctypes.string_at(data, size) if data and size else b""
        try:
            result, struct_out = self.kvm.ioctl(number, Call(descriptor, argument or 0, struct_in, Caller(caller())))
        finally:
            self.notifier.settle()
        if struct_out:
            assert data is not None and len(struct_out) == size
            ctypes.memmove(data, struct_out, size)
        return result

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
        text = path.decode("utf-8", "surrogateescape")
        handle = self.handles[fip.contents.fh]
        if handle.gone or known is None or not isinstance(known[1], Directory):
            handle.gone = True
            return self._nothing_left(text, buf, filler, offset)
        here = known[1].path
        passing = type(known[1]).OF_TASKS
        listing = self._listing(known[1])
        entry = c_stat()
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

    def _listing(self, directory: Directory[Any]) -> Entries:
        if type(directory).OF_TASKS:
            return self.tree.entries(directory)
        listing = self.listings.get(directory.path)
        if listing is None:
            if len(self.listings) >= CACHED_PATHS // 16:
                self.listings.clear()
                self.rows.clear()
            listing = self.listings[directory.path] = self.tree.entries(directory)
        return listing

    def _rows(self, here: str, listing: Entries, offset: int, passing: bool) -> Iterable[_Row]:
        if passing or len(listing.names) > CACHED_NAMES:
            return _rows(here, listing, offset)
        rows = self.rows.get(here)
        if rows is None:
            rows = self.rows[here] = list(_rows(here, listing, 2))
        return rows if offset == 2 else rows[bisect_left(listing.offsets, offset) :]

    def _nothing_left(self, text: str, buf: Any, filler: Any, offset: int) -> int:
        # a removed directory lists itself and its parent, and nothing more where it was half read
        entry = c_stat()
        if offset == 0:
            entry.st_mode, entry.st_ino = stat.S_IFDIR, inode_number(text)
            filler(buf, b".", entry, DOT_OFFSET)
            filler(buf, b"..", entry, LAST_OFFSET)
        return 0

    # --- what sysfs refuses, and how ---------------------------------------------------

    def write(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
        memory = self.handles[fip.contents.fh].memory
        if memory is not None:
            return os.pwrite(memory.fileno(), ctypes.string_at(buf, size), offset)
        # one write is one store, whatever the offset, and a page of it at most
        if self.handles[fip.contents.fh].gone:
            return -errno.ENODEV
        if self.faults is not None:
            self._fail("write", path)
        data = ctypes.string_at(buf, min(size, PAGE_SIZE))
        try:
            return self.tree.write(path.decode("utf-8", "surrogateescape"), data)
        finally:
            self.notifier.settle()

    def create(self, path: bytes, mode: int, fip: Any) -> int:
        return -errno.EACCES

    def mknod(self, path: bytes, mode: int, dev: int) -> int:
        return -errno.EACCES if stat.S_ISREG(mode) else -errno.EPERM

    def _not_permitted(self, *_: Any) -> int:
        return -errno.EPERM

    mkdir = symlink = link = _not_permitted

    def truncate(self, path: bytes, length: int) -> int:
        # the size stays; O_TRUNC arrives as this, and sets every time to now
        moment = now()
        return self._keep(path, times=(*moment, *moment, *moment))

    def ftruncate(self, path: bytes, length: int, fip: Any) -> int:
        return 0

    def chmod(self, path: bytes, mode: int) -> int:
        return self._keep(path, mode=mode)

    def chown(self, path: bytes, uid: int, gid: int) -> int:
        unset = 0xFFFFFFFF
        new = {name: number for name, number in (("uid", uid), ("gid", gid)) if number & unset != unset}
        return self._keep(path, **new)

    def utimens(self, path: bytes, buf: Any) -> int:
        moment = now()
        times = (*moment, *moment)
        if buf:
            both = (buf.contents.actime, buf.contents.modtime)
            times = (both[0].tv_sec, both[0].tv_nsec, both[1].tv_sec, both[1].tv_nsec)
        return self._keep(path, times=(*times, *moment))

    def statfs(self, path: bytes, buf: Any) -> int:
        buf.contents.f_bsize = buf.contents.f_frsize = PAGE_SIZE
        buf.contents.f_namemax = 255
        return 0

    def init(self, conn: Any) -> int:
        self.ready()
        for start in self.tree.starting:
            start()
        return 0


def _upwards(path: bytes) -> Iterator[str]:
    # the path and every directory above it
    text = path.decode("utf-8", "surrogateescape")
    while text:
        yield text
        text = text.rpartition("/")[0]


def serve(tree: Tree, mountpoint: str, ready: Callable[[], None]) -> None:
    """
    Serve `tree` at `mountpoint` until it is unmounted or the process gets SIGTERM, SIGHUP or
    SIGINT; `ready` is called once the kernel has begun to talk to us. UserError if libfuse cannot mount.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # what is kept for the paths looked at makes no cycles
    options = [
        "default_permissions",
        "use_ino",
        f"entry_timeout={FOREVER}",
        f"attr_timeout={FOREVER}",
        f"negative_timeout={FOREVER}",
        "fsname=tdxfs",
        "subtype=tdxfs",
    ]
    if os.geteuid() == 0:
        options.append("allow_other")
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:  # by libfuse and fusermount: the reason, if they cannot mount
        os.dup2(said.fileno(), 2)
        try:
            server = Server(tree, mountpoint, ready, ",".join(options))
        except RuntimeError as error:
            said.seek(0)
            reason = "; ".join(said.read().decode("utf-8", "replace").split("\n")[:-1])
            raise UserError(f"{mountpoint}: libfuse cannot mount here: {reason or error}") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    server.serve()
