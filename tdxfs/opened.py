"""Open descriptions of a mount: what each reads, and how it waits."""

from __future__ import annotations

import errno
import os
import select
import tempfile
from typing import IO

from tdxfs.descriptors import Descriptor
from tdxfs.failures import Failures
from tdxfs.finder import upwards
from tdxfs.fuse_abi import drop, wake
from tdxfs.fuse_wire import DIRECT_IO, mode_of, pack_opened
from tdxfs.inodes import Inode, Inodes
from tdxfs.model import Machine
from tdxfs.sysfs.attribute import Directory, Entry, File, Reader
from tdxfs.tree import Tree, content

O_DIRECT = os.O_DIRECT
READABLE = select.POLLIN | select.POLLRDNORM


class Opened:
    """One open description; `file` is None of a directory and of an object that is gone."""

    # what few of them have
    gone = False
    unseen = True
    """Whether there has been an event since the last read."""
    waiter: int | None = None
    """Who waits for one."""
    memory: IO[bytes] | None = None
    """What a device file that can be written holds."""
    kvm: Descriptor | None = None
    at = 0
    """The next record."""
    data: bytes | None = None
    """The text that it reads."""

    def __init__(self, inode: Inode, file: File | None, stamp: int, told: int, flags: int) -> None:
        self.inode = inode
        self.file = file
        self.plain = file is not None and file.plain and not inode.passing
        """Whether nothing but another machine changes what it reads."""
        self.stamp = stamp
        self.told = told
        self.flags = flags


class Descriptions:
    """The open descriptions of a mount, by the handles that the kernel has of them."""

    def __init__(self, tree: Tree, inodes: Inodes, failures: Failures | None) -> None:
        self._tree = tree
        self._inodes = inodes
        self.failures = failures
        self._opened: dict[int, Opened] = {}
        self._last = 0
        self._memories: dict[str, IO[bytes]] = {}

    def __getitem__(self, handle: int) -> Opened:
        return self._opened[handle]

    def add(self, opened: Opened) -> int:
        """Its handle."""
        handle = self._last = self._last + 1
        self._opened[handle] = opened
        return handle

    def open(self, nodeid: int, flags: int) -> bytes | int:
        """open(2) of a file: ``struct fuse_open_out``, or a negative errno."""
        inodes = self._inodes
        inode = inodes.nodes[nodeid]
        stamp = inodes.stamp
        file = inode.entry if inode.stamp == stamp else None
        if file is None:
            file = inodes.entry(inode)
            if file is None:
                return -errno.ENODEV
        assert isinstance(file, File)
        mode = mode_of(inode.said)
        access = flags & 3
        # a file without the bit cannot be opened so even by root (KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK)
        if (access in (0, 2) and not mode & 0o444) or (access in (1, 2) and not mode & 0o222):
            return -errno.EACCES
        if flags & O_DIRECT:
            return -errno.EINVAL
        if file.may_open is not None:
            file.may_open()
        if self.failures is not None:
            self.failures.meet("open", inode.path)
        opened = Opened(inode, file, stamp, inode.told, flags)
        if not opened.plain:
            self._prepare(opened, file, access)
        # only what the page cache holds can be mapped MAP_SHARED
        return pack_opened(self.add(opened), DIRECT_IO if opened.memory is None else 0)

    def _prepare(self, opened: Opened, file: File, access: int) -> None:
        if file.records is not None:
            opened.at = file.records().first
        if file.reader is Reader.KVM:
            opened.kvm = Descriptor()
        elif file.reader is Reader.MEMORY and access == os.O_RDWR:
            opened.memory = self._memory(opened.inode.path)

    def close(self, handle: int) -> Opened:
        """The end of a description."""
        opened = self._opened.pop(handle)
        if opened.waiter is not None:
            drop(opened.waiter)
        return opened

    def _memory(self, path: str) -> IO[bytes]:
        # what was written to a device, for as long as the mount
        if path not in self._memories:
            self._memories[path] = tempfile.TemporaryFile(prefix="tdxfs-", buffering=0)  # noqa: SIM115
        return self._memories[path]

    # --- reading ------------------------------------------------------------------------

    def read(self, handle: int, size: int, offset: int) -> bytes | int:
        """One read(2): the data, or a negative errno."""
        opened = self._opened[handle]
        if not opened.plain or opened.stamp != self._inodes.stamp or self.failures is not None:
            return self._read_anew(opened, size, offset)
        data = opened.data
        if data is None or offset == 0:
            opened.unseen = False
            file = opened.file
            assert file is not None
            data = opened.data = file.text or _shown(file)
        return data[offset : offset + size] if offset or size < len(data) else data

    def _read_anew(self, opened: Opened, size: int, offset: int) -> bytes | int:
        # what is not plain, or not known to be up to date
        data, file = opened.data, opened.file
        if file is not None and opened.memory is not None:
            return os.pread(opened.memory.fileno(), size, offset).ljust(min(size, file.size - offset), b"\0")
        if file is not None and file.sampled and (offset == 0 or data is None):
            self._tree.sample()
        self._renew(opened)
        file = opened.file
        if file is None:
            return -errno.ENODEV
        if self.failures is not None:
            short = self.failures.meet("read", opened.inode.path)
            size = size if short is None else min(size, short)
        if file.reader is Reader.RECORDS:
            return _read_record(opened, file, size)
        if offset == 0 or data is None:
            opened.unseen = False
            data = opened.data = _shown(file) if opened.plain else content(file)
        if file.reader is Reader.CPUMASK:
            # cpumap_print_to_pagebuf(): every read ends one byte early, and past the end is EPERM
            if offset >= file.size:
                return b""
            if offset > len(data):
                return -errno.EPERM
            size = min(size, len(data) + 1 - offset) - 1
        return data[offset : offset + size]

    def _renew(self, opened: Opened) -> None:
        # if the machine has changed, what an open file shows next is the new one's, if it is still there
        stamp, told = self._inodes.stamp, self._tree.told
        if opened.stamp == stamp and (not opened.inode.passing or opened.told == told):
            return
        file = None if opened.gone else self._inodes.entry(opened.inode)
        opened.file = file if isinstance(file, File) else None
        opened.plain = opened.file is not None and opened.file.plain and not opened.inode.passing
        opened.gone = opened.file is None
        opened.stamp, opened.told = stamp, told

    # --- events -------------------------------------------------------------------------

    def wait(self, handle: int, waiter: int | None) -> int:
        """The events of poll(2) that there are; `waiter`, if any, is woken by the next one."""
        opened = self._opened[handle]
        if waiter is not None:  # before the events: one that comes between finds who waits
            opened.waiter, before = waiter, opened.waiter
            if before is not None:
                drop(before)
        return self._events(opened)

    def _events(self, opened: Opened) -> int:
        # kernfs_generic_poll(): readable always; an event since the last read, also none read yet, is POLLPRI
        self._renew(opened)
        if opened.file is None:
            return select.POLLIN | select.POLLPRI | select.POLLERR
        if opened.file.records is not None:
            return READABLE if opened.at < opened.file.records().end else 0
        always = READABLE | select.POLLOUT | select.POLLWRNORM
        return always | select.POLLPRI | select.POLLERR if opened.unseen else always

    def change(self, old: Machine, new: Machine, gone: set[str]) -> list[int]:
        """
        One machine follows another, and what was at some paths is gone: descriptions see it, who waits is woken. The
        node numbers of directories of tasks, whose link counts may be others.
        """
        of_tasks = []
        for opened in list(self._opened.values()):
            path, entry = opened.inode.path, None
            if opened.inode.brief:
                entry = self._entry(new, path)
                if isinstance(entry, Directory):
                    of_tasks.append(opened.inode.nodeid)
            if (gone and not gone.isdisjoint(upwards(path))) or (opened.inode.brief and entry is None):
                opened.gone, opened.plain, opened.file, opened.data = True, False, None, None
            if not opened.gone:
                file = opened.file
                if file is None or not (file.notifies or file.records):
                    continue
                if not _has_event(self._entry(old, path), entry or self._entry(new, path)):
                    continue
                opened.unseen = True
            waiter, opened.waiter = opened.waiter, None
            if waiter is not None:
                wake(waiter)
        return of_tasks

    def _entry(self, machine: Machine, path: str) -> Entry | None:
        entry: Entry | None = self._tree.root_of(machine)
        for name in path.split("/")[1:]:
            entry = entry.lookup(name, self._tree.tiers) if isinstance(entry, Directory) else None
        return entry


def _shown(file: File) -> bytes:
    if file.text is None:
        file.text = content(file)
    return file.text


def _has_event(was: Entry | None, now: Entry | None) -> bool:
    # sysfs_notify() of what shows another value now, and a wake-up where a record has come
    if not isinstance(was, File) or not isinstance(now, File):
        return True
    if was.records is not None and now.records is not None:
        return was.records().end != now.records().end
    return was.show() != now.show()


def _read_record(opened: Opened, file: File, size: int) -> bytes | int:
    assert file.records is not None
    records = file.records()
    opened.at = min(opened.at, records.end)  # after a reboot they begin anew
    if opened.at < records.first:  # those that it had not read yet are gone
        opened.at = records.first
        return -errno.EPIPE
    if opened.at >= records.end:
        return -errno.EAGAIN if opened.flags & os.O_NONBLOCK else b""
    part = records.text(opened.at).encode()
    if len(part) > size:
        return -errno.EINVAL
    opened.at += 1
    return part
