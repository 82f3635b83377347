"""What of all that the kernel has cached of the tree a change makes wrong.

Names and attributes are cached for an hour, except for names that depend on tasks. Only directories in which the kernel
knows names (`Inodes`) and in which something may differ (`Directory.touched`) are visited.
"""

from __future__ import annotations

from collections.abc import Collection
from stat import S_ISDIR
from typing import Any

from attrs import define, field

from tdxfs.fuse_wire import encoded
from tdxfs.inodes import Inodes
from tdxfs.sysfs.attribute import Directory, Entry, File, Tier
from tdxfs.tree import stat_of


@define
class Stale:
    """What the kernel has to be told after a change."""

    gone: set[str] = field(factory=set)
    """Paths whose object is no more, and with it everything below."""
    names: list[tuple[int, bytes]] = field(factory=list)
    """(node number of the directory, name): to be looked up anew."""
    attributes: list[int] = field(factory=list)
    """Node numbers whose attributes are to be asked for anew."""


class Cached:
    """What the kernel knows, compared with what there is."""

    def __init__(self, inodes: Inodes, tiers: Collection[Tier]) -> None:
        self._inodes = inodes
        self._tiers = tiers

    def change(self, old: Directory[Any], new: Directory[Any]) -> Stale:
        """What is stale when the tree below the root `new` follows the one below `old`."""
        stale = Stale()
        self._visit(old, new, stale)
        return stale

    def names(self, directory: str, names: Collection[str]) -> Stale:
        """Names of one directory, as stale."""
        inode = self._inodes.at(directory)
        return Stale(names=[(inode.nodeid, encoded(name)) for name in names] if inode is not None else [])

    def _visit(self, old: Directory[Any], new: Directory[Any], stale: Stale) -> None:
        inode = self._inodes.at(new.path)
        if inode is None or inode.kind is None or new.OF_TASKS:
            return
        for name, was, now in new.compare(old, self._tiers):
            if was is None and now is None:
                continue
            if isinstance(was, Directory) and isinstance(now, Directory):
                child = self._inodes.at(now.path)
                if child is None or now.OF_TASKS:
                    continue
                if was.nlink(self._tiers) != now.nlink(self._tiers):
                    stale.attributes.append(child.nodeid)
                self._visit(was, now, stale)
            elif _kind(was) is not _kind(now):
                stale.names.append((inode.nodeid, encoded(name)))
                if was is not None:
                    stale.gone.add(f"{new.path}/{name}")
                for one in (was, now):
                    if isinstance(one, Directory):
                        self._forget(one, stale)
            elif isinstance(was, File) and isinstance(now, File) and stat_of(was) != stat_of(now):
                stale.names.append((inode.nodeid, encoded(name)))

    def _forget(self, directory: Directory[Any], stale: Stale) -> None:
        # what the kernel knows below a directory that goes stays, also for the next one, while somebody has it open
        inode = self._inodes.at(directory.path)
        if inode is None or inode.kind is None or directory.OF_TASKS:
            return
        for name, kind in directory.entries(self._tiers):
            stale.names.append((inode.nodeid, encoded(name)))
            below = directory.lookup(name, self._tiers) if S_ISDIR(kind) else None
            if isinstance(below, Directory):
                self._forget(below, stale)


def _kind(entry: Entry | None) -> type | None:
    # all directories are one kind here
    return Directory if isinstance(entry, Directory) else None if entry is None else type(entry)
