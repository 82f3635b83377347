"""What the kernel may have cached of the tree, and what of that a change makes wrong.

Names and attributes are cached for an hour. A directory is known here from the first name that the kernel looks up
in it; after a change only directories in which something may differ are visited (`Directory.touched`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from threading import Lock
from typing import Any

from attrs import define, field

from tdxfs.fuse_abi import ROOT_NODEID
from tdxfs.sysfs.attribute import Directory, Entry, File, Tier
from tdxfs.tree import stat_of


@define(eq=False)
class Known:
    """A directory that the kernel has looked names up in."""

    path: bytes
    nodeid: int = 0
    """The kernel's number of it; 0: not seen yet."""
    fleeting: bool = False
    names: set[bytes] = field(factory=set)
    """The names looked up in it since the last change, of a fleeting one."""
    below: dict[str, Known] = field(factory=dict)


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
    """The directories that the kernel knows. Several threads may use it."""

    def __init__(self, tiers: Collection[Tier]) -> None:
        self._tiers = tiers
        self._root = Known(b"", ROOT_NODEID)
        self._by_path = {b"": self._root}
        self._lock = Lock()

    def looked_up(self, directory: bytes, nodeid: int, name: bytes, cls: type[Directory[Any]] | None) -> None:
        """The kernel looks up `name` in a directory of class `cls`, None if that is not known, numbered `nodeid`."""
        with self._lock:
            known = self._by_path.get(directory)
            if known is None:
                known = self._know(directory)
                known.fleeting = cls is not None and cls.FLEETING
            known.nodeid = nodeid
            if known.fleeting:
                known.names.add(name)

    def knows(self, directory: bytes) -> bool:
        return directory in self._by_path

    def _know(self, path: bytes) -> Known:
        known = self._by_path.get(path)
        if known is None:
            parent, _, name = path.rpartition(b"/")
            known = self._by_path[path] = Known(path)
            self._know(parent).below[name.decode("utf-8", "surrogateescape")] = known
        return known

    def change(self, old: Directory[Any], new: Directory[Any]) -> Stale:
        """What is stale when the tree below the root `new` follows the one below `old`."""
        stale = Stale()
        with self._lock:
            self._visit(self._root, old, new, stale)
        return stale

    def names(self, directory: bytes, names: Iterable[bytes]) -> Stale:
        """Names of one directory, as stale."""
        known = self._by_path.get(directory)
        return Stale(names=[(known.nodeid, name) for name in names]) if known is not None and known.nodeid else Stale()

    def _visit(self, known: Known, old: Directory[Any], new: Directory[Any], stale: Stale) -> None:
        if known.fleeting:
            stale.names += [(known.nodeid, name) for name in known.names]
            known.names.clear()
            for below in known.below.values():
                self._drop(below)
            known.below.clear()
            return
        for name, was, now in new.compare(old, self._tiers):
            child = known.below.get(name)
            if was is None and now is None:
                continue
            if isinstance(was, Directory) and isinstance(now, Directory):
                if now.FLEETING or was.nlink(self._tiers) != now.nlink(self._tiers):
                    self._attributes(known, child, name, stale)
                if child is not None:
                    self._visit(child, was, now, stale)
            elif _kind(was) is not _kind(now):
                self._name(known, name, stale)
                if was is not None:
                    stale.gone.add(f"{new.path}/{name}")
                if child is not None:
                    self._drop(known.below.pop(name))
            elif isinstance(was, File) and isinstance(now, File) and stat_of(was) != stat_of(now):
                self._name(known, name, stale)

    def _name(self, known: Known, name: str, stale: Stale) -> None:
        if known.nodeid:
            stale.names.append((known.nodeid, name.encode("utf-8", "surrogateescape")))

    def _attributes(self, known: Known, child: Known | None, name: str, stale: Stale) -> None:
        if child is not None and child.nodeid:
            stale.attributes.append(child.nodeid)
        else:
            self._name(known, name, stale)

    def _drop(self, known: Known) -> None:
        del self._by_path[known.path]
        for child in known.below.values():
            self._drop(child)


def _kind(entry: Entry | None) -> type | None:
    # all directories are one kind here
    return Directory if isinstance(entry, Directory) else None if entry is None else type(entry)
