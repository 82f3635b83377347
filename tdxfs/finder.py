"""The entries of a tree by path, and how names are looked up in directories, remembered until the machine changes.

A name is looked up without making its entry where every directory of a class says the same of it (`Shapes`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import define

from tdxfs.errors import NoEntry
from tdxfs.fuse_wire import Parts, parts_of
from tdxfs.sysfs.attribute import Directory, Entry, File, Shape
from tdxfs.tree import Tree


@define(eq=False)
class Kind:
    """What all directories of a class have in common (`Shapes`, with parts for shapes)."""

    declared: dict[str, tuple[Parts | None, Callable[[Any], bool] | None, Callable[[Any], Entry | None]]]
    families: tuple[tuple[Callable[[Any, str], Any], Parts | None, Callable[[Any, str, Any], Entry]], ...]
    quick: bool = True
    """Whether these say which names there are."""
    lists: bool = True
    """Whether a listing may tell the kernel its names."""
    brief: bool = False
    """Whether the kernel may not keep its names: they come and go with tasks, or it is gone itself."""


OWN_WAY = Kind({}, (), quick=False)
UNTOLD = Kind({}, (), quick=False, lists=False)
BRIEF = Kind({}, (), quick=False, lists=False, brief=True)


class Finder:
    """
    What is at a path, and the kinds of directories. What is remembered is of one stamp, that of the table of inodes,
    which goes up with every change but those of tasks.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.owner = owner()
        self.vanished: frozenset[str] = frozenset()
        """Paths that a fault has taken away: nothing at them or below is found."""
        self._directories: dict[str, Directory[Any]] = {}
        self._kinds: dict[type, Kind] = {}
        self._stamp = 0

    def entry(self, path: str, stamp: int) -> tuple[Entry, bool]:
        """The entry at a path, and whether a change of the machine's tasks makes it another thing; NoEntry."""
        if self.vanished and not self.vanished.isdisjoint(upwards(path)):
            raise NoEntry(path)
        if not path:
            return self._tree.root, False
        above, _, name = path.rpartition("/")
        directory = self._directory(above, stamp)
        if directory is None:
            raise NoEntry(path)
        of_tasks = type(directory).OF_TASKS
        entry = (self._now(directory) if of_tasks else directory).lookup(name, self._tree.tiers)
        passing = of_tasks or _is_of_tasks(entry)
        if passing and not of_tasks:
            entry = self._now(directory).lookup(name, self._tree.tiers)
        if entry is None:
            raise NoEntry(path)
        return entry, passing

    def _now(self, directory: Directory[Any]) -> Directory[Any]:
        # what only tasks have changed is the same directory
        machine = self._tree.machine
        if directory.machine is machine:
            return directory
        return type(directory)(directory.path, machine, directory.key)

    def _directory(self, path: str, stamp: int) -> Directory[Any] | None:
        if self._stamp != stamp:
            self._catch_up(stamp)
        found = self._directories.get(path)
        if found is None:
            try:
                entry, passing = self.entry(path, stamp)
            except NoEntry:
                return None
            if not isinstance(entry, Directory):
                return None
            found = entry
            above = self._directory(path.rpartition("/")[0], stamp) if passing else None
            if not passing or (above is not None and not above.OF_TASKS):
                self._directories[path] = entry
        return found

    def _catch_up(self, stamp: int) -> None:
        self._stamp = stamp
        self._directories.clear()
        self._kinds.clear()

    def kind(self, directory: Directory[Any], stamp: int) -> Kind:
        """What holds of all directories of its class."""
        if self._stamp != stamp:
            self._catch_up(stamp)
        kind = self._kinds.get(type(directory))
        if kind is None:
            shapes = directory.shapes(self._tree.tiers)
            kind = OWN_WAY
            if shapes is not None:
                kind = Kind(
                    {
                        name: (self._parts_of_shape(shape), there, make)
                        for name, (shape, there, make) in shapes.declared.items()
                    },
                    tuple((find, self._parts_of_shape(shape), make) for find, shape, make in shapes.families),
                )
            self._kinds[type(directory)] = kind
        return kind

    def _parts_of_shape(self, shape: Shape | None) -> Parts | None:
        return None if shape is None else parts_of(shape.mode, shape.nlink, shape.size, 0, *self.owner)


def _is_of_tasks(entry: Entry | None) -> bool:
    return type(entry).OF_TASKS if isinstance(entry, Directory) else isinstance(entry, File) and entry.sampled


def upwards(path: str) -> set[str]:
    """A path and every directory above it, but for the root."""
    found = set()
    while path:
        found.add(path)
        path = path.rpartition("/")[0]
    return found


def owner() -> tuple[int, int]:
    """
    Uid and gid of every file: root, but in a user namespace that has no root nobody may write to root's files, so
    there the user owns them.
    """
    with open("/proc/self/uid_map", encoding="ascii") as file:
        if any(line.split()[0] == "0" for line in file):
            return 0, 0
    return os.geteuid(), os.getegid()
