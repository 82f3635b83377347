"""What the kernel knows of a mounted tree: the names that it has looked up, by the numbers that it got for them.

What stat(2) says of a name is told without making its entry where every directory of a class says the same of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any

from tdxfs import fuse_wire as wire
from tdxfs.errors import NoEntry
from tdxfs.finder import BRIEF, UNTOLD, Finder, Kind
from tdxfs.fuse_wire import Parts, parts_of
from tdxfs.model import kernel_at_least
from tdxfs.sysfs.attribute import Directory, Entry
from tdxfs.tree import INODE_MASK, Tree, inode_number, path_number

NEVER = STEADY = -1
"""The stamp of what is not up to date."""
MAX_NON_LFS, LFS_SINCE = (1 << 31) - 1, "7.3"
"""The largest size of a file, and the kernel from which on kernfs knows no such limit."""
DAY = 24 * 3600
"""Seconds after which relatime counts an access in any case."""


class Inode:
    """
    A path that the kernel has a number for. What is remembered of it holds while its `stamp` is the table's, or the
    table's `brief_stamp` if its name comes and goes with tasks.
    """

    __slots__ = ("entered", "entry", "kind", "lookups", "nodeid", "path", "said", "stamp", "told", "within")
    entered: int
    """The stamp of when its `kind` was found out."""

    def __init__(
        self, path: str, nodeid: int, said: bytes, stamp: int, entry: Entry | None, within: Inode | None
    ) -> None:
        self.path = path
        """Empty: the root."""
        self.nodeid = nodeid
        self.said = said
        """``struct fuse_entry_out`` as it was last said; goes on to be said when the object is gone."""
        self.stamp = stamp
        self.entry = entry
        """None: it has not been made."""
        self.told = STEADY
        """Changes of tasks (`Tree.told`) before it was made; STEADY: they do not matter to it."""
        self.within = within
        """The directory where it was found, if so as a declared name and without making its entry."""
        self.lookups = 1
        """Answers about it that the kernel has not forgotten."""
        self.kind: Kind | None = None
        """How names are looked up in it; None: the kernel knows no name in it."""

    @property
    def passing(self) -> bool:
        """Whether a change of the machine's tasks makes it another thing."""
        return self.told != STEADY

    @property
    def brief(self) -> bool:
        """Whether the kernel may not keep its name: it comes and goes with tasks."""
        return wire.is_brief(self.said)


class Inodes:
    """
    The table of a mount's inodes. One thread asks it; another may change the machine meanwhile: what is made of the
    old one is then stamped as such, since the stamp is read before the tree.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.finder = Finder(tree)
        self.nodes = _root_alone()
        """By the kernel's number."""
        self.kept: dict[str, dict[str, Any]] = {}
        """Path -> what chmod, chown, utimes and truncate set."""
        self._generation = tree.generation
        self.stamp = 0
        """Goes up when what is remembered of the tree holds no more."""

    def rehearse(self, paths: Iterable[str]) -> None:
        """Look paths up and forget them: what is worked out once is worked out before somebody waits for it."""
        for path in paths:
            inode: Inode | None = self.nodes[wire.ROOT_NODEID]
            for name in path.split("/")[1:]:
                if inode is not None:
                    self.look_up(inode.nodeid, name)
                    inode = self.at(f"{inode.path}/{name}")
        self.nodes = _root_alone()

    def at(self, path: str) -> Inode | None:
        """The inode of a path; None if the kernel does not know it."""
        return self.nodes.get(path_number(path) if path else wire.ROOT_NODEID)

    def follow(self) -> None:
        """The machine has changed; if not only its tasks, what was true of the other one is asked for anew."""
        if self._generation != self._tree.generation:
            self._generation = self._tree.generation
            self.forget_all()

    @property
    def brief_stamp(self) -> int:
        """Another one after each change of the machine, of its tasks alone, too; negative."""
        return NEVER - 1 - (self.stamp << 64) - self._tree.told

    def forget_all(self) -> None:
        """Ask the tree anew."""
        self.stamp += 1

    def forget(self, nodeid: int, lookups: int) -> None:
        """The kernel has forgotten so many answers about an inode."""
        inode = self.nodes[nodeid]
        inode.lookups -= lookups
        if inode.lookups <= 0 and nodeid != wire.ROOT_NODEID:
            del self.nodes[nodeid]

    # --- names --------------------------------------------------------------------------

    def look_up(self, nodeid: int, name: str) -> bytes:
        """``struct fuse_entry_out`` of a name in a directory."""
        directory = self.nodes[nodeid]
        kind = directory.kind
        if kind is None or directory.entered != self.stamp:
            kind = self.enter(directory)
        return self.find(directory, kind, name) or (wire.MISSING_NOW if kind.brief else wire.MISSING)

    def enter(self, directory: Inode) -> Kind:
        """How names are looked up in a directory: from now on the kernel knows names in it."""
        kind, stamp = directory.kind, self.stamp
        if kind is None or directory.entered != stamp:
            # before the tree is asked: a change that comes between is told to the kernel after this answer
            directory.entered, directory.kind = stamp, BRIEF
            entry = self.entry(directory)
            if isinstance(entry, Directory) and not entry.OF_TASKS:
                untold = directory.passing or self.finder.vanished
                directory.kind = UNTOLD if untold else self.finder.kind(entry, stamp)
            kind = directory.kind
        return kind

    def find(self, directory: Inode, kind: Kind, name: str) -> bytes | None:
        """
        ``struct fuse_entry_out`` of a name in a directory whose kind was found out, for the kernel to know it; None:
        there is none.
        """
        path = f"{directory.path}/{name}"
        number = path_number(path)
        stamp = directory.entered
        inode = self.nodes.get(number)
        if inode is not None and (inode.stamp == stamp or (inode.stamp < 0 and inode.stamp == self.brief_stamp)):
            inode.lookups += 1
            return inode.said
        parts: Parts | None = None
        entry: Entry | None = None
        brief, told = False, STEADY
        if kind.quick:
            above = directory.entry
            declared = kind.declared.get(name)
            if declared is not None and (declared[1] is None or declared[1](above)):
                parts = declared[0]
            else:
                for key_of, shape, make in kind.families:
                    key = key_of(above, name)
                    if key is not None:
                        parts, entry = shape, make(above, name, key)
                        break
                else:
                    return None
        if parts is None or (self.kept and path in self.kept):
            before, brief_stamp = self._tree.told, self.brief_stamp
            try:
                entry, passing = self.finder.entry(path, stamp)
            except NoEntry:
                return None
            parts = self._parts(path, entry)
            told = before if passing else STEADY
            brief = kind.brief or (isinstance(entry, Directory) and entry.OF_TASKS)
            stamp = brief_stamp if brief else stamp
        if inode is None:
            said = wire.entry(number, number & INODE_MASK, parts, wire.times_now(), brief)
        else:
            said = wire.again(inode.said, parts)
        if self.kept:
            said = self._at_kept_times(path, said)
        within = directory if entry is None else None
        if inode is None:
            inode = self.nodes[number] = Inode(path, number, said, stamp, entry, within)
        else:
            inode.lookups += 1
            inode.said, inode.stamp, inode.entry, inode.within = said, stamp, entry, within
        inode.told = told
        return said

    # --- what stat(2) says ----------------------------------------------------------------

    def attributes_of(self, nodeid: int) -> bytes:
        """``struct fuse_attr_out``; of what is gone, what it said last."""
        inode = self.nodes[nodeid]
        if inode.stamp != self.stamp:
            self.entry(inode)
        return wire.attributes(inode.said)

    def change_attributes(self, nodeid: int, change: wire.Change) -> bytes:
        """
        chmod, chown, utimes and truncate: kernfs keeps what they set for as long as the object lives. OSError where a
        size is refused (inode_newsize_ok).
        """
        inode = self.nodes[nodeid]
        if (change.size or 0) > MAX_NON_LFS and not kernel_at_least(self._tree.machine.topology.kernel, LFS_SINCE):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), inode.path)
        entry = self.entry(inode)
        if entry is None:
            return wire.attributes(inode.said)
        kept = self.kept.setdefault(inode.path, {})
        new = {"mode": change.mode, "uid": change.uid, "gid": change.gid}
        kept |= {name: value for name, value in new.items() if value is not None}
        moment = wire.now()
        if change.truncates:
            kept["times"] = (*moment, *moment, *moment)
        elif change.atime is not None or change.mtime is not None:
            atime, mtime, _ = wire.times(inode.said)
            kept["times"] = (*(change.atime or atime), *(change.mtime or mtime), *moment)
        self._say(inode, entry)
        return wire.attributes(inode.said)

    def accessed(self, inode: Inode) -> None:
        """A directory is listed, or a link read: its atime is now, where relatime lets it be."""
        atime, mtime, ctime = wire.times(inode.said)
        moment = wire.now()
        if atime <= mtime or atime <= ctime or moment[0] - atime[0] >= DAY:
            times = (*moment, *mtime, *ctime)
            inode.said = wire.at_times(inode.said, times)
            if "times" in self.kept.get(inode.path, ()):
                self.kept[inode.path]["times"] = times

    def drop_kept(self) -> None:
        """Forget what was kept of objects that are no more."""
        for path in [path for path in self.kept if not self._tree.has(path)]:
            del self.kept[path]

    def _say(self, inode: Inode, entry: Entry) -> None:
        parts = self._parts(inode.path, entry)
        if inode.said:
            said = wire.again(inode.said, parts)
        else:
            said = wire.entry(inode.nodeid, inode_number(inode.path or "/"), parts, wire.times_now(), False)
        inode.said = self._at_kept_times(inode.path, said)

    def _at_kept_times(self, path: str, said: bytes) -> bytes:
        times = self.kept[path].get("times") if path in self.kept else None
        return said if times is None else wire.at_times(said, times)

    def _parts(self, path: str, entry: Entry) -> Parts:
        if isinstance(entry, Directory):
            mode, size, rdev, nlink = entry.MODE, 0, 0, entry.nlink(self._tree.tiers)
        else:
            mode, size, rdev, nlink = entry.mode, entry.size, entry.rdev, entry.nlink
        uid, gid = self.finder.owner
        kept = self.kept.get(path)
        if kept is not None:
            mode = mode & ~0o7777 | kept.get("mode", mode) & 0o7777
            uid, gid = kept.get("uid", uid), kept.get("gid", gid)
        return parts_of(mode, nlink, size, rdev, uid, gid)

    # --- entries --------------------------------------------------------------------------

    def entry(self, inode: Inode) -> Entry | None:
        """What is at an inode's path now, or None; what stat(2) says of it is up to date then."""
        stamp = self.stamp
        if inode.stamp == stamp or (inode.stamp < 0 and inode.stamp == self.brief_stamp):
            if inode.entry is not None and (inode.told == STEADY or inode.told == self._tree.told):
                return inode.entry
            directory = inode.within
            if directory is not None and directory.kind is not None and directory.entered == stamp:
                declared = directory.kind.declared[inode.path[len(directory.path) + 1 :]]
                inode.entry = declared[2](directory.entry)
                return inode.entry
        told, now = self._tree.told, self.brief_stamp if inode.brief else stamp
        try:
            entry, passing = self.finder.entry(inode.path, stamp)
        except NoEntry:
            return None
        if inode.stamp != now:
            self._say(inode, entry)
        inode.stamp, inode.entry, inode.within = now, entry, None
        inode.told = told if passing else STEADY
        return entry


def _root_alone() -> dict[int, Inode]:
    return {wire.ROOT_NODEID: Inode("", wire.ROOT_NODEID, b"", NEVER, None, None)}
