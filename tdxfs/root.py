"""The root of the mount: which directories stand at a fixed place.

Every class in `FIXED` names its place in `WHAT`; the directories between them are made here.
A class that is not in `FIXED` hangs below one that is.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator
from typing import Any, ClassVar, Self

from attrs import define, field

from tdxfs import devfs, procfs
from tdxfs.model import Machine
from tdxfs.sysfs import (
    bus,
    cgroup,
    cpu,
    dax_parents,
    debug,
    devnum,
    dmi,
    dmi_entries,
    guests,
    memory,
    memory_tiers,
    mm,
    module,
    node,
    pages,
    pci,
    tasks,
    tdx_host,
)
from tdxfs.sysfs.attribute import ALL_TIERS, Directory, DirectoryClass, Entry, Tier

FIXED: tuple[DirectoryClass, ...] = (
    *bus.DIRECTORIES,
    *cgroup.DIRECTORIES,
    *cpu.DIRECTORIES,
    *dax_parents.DIRECTORIES,
    *debug.DIRECTORIES,
    *devfs.DIRECTORIES,
    *devnum.DIRECTORIES,
    *dmi.DIRECTORIES,
    *dmi_entries.DIRECTORIES,
    *guests.DIRECTORIES,
    *memory.DIRECTORIES,
    *memory_tiers.DIRECTORIES,
    *mm.DIRECTORIES,
    *module.DIRECTORIES,
    *node.DIRECTORIES,
    *pages.DIRECTORIES,
    *pci.DIRECTORIES,
    *procfs.DIRECTORIES,
    *tasks.DIRECTORIES,
    *tdx_host.DIRECTORIES,
)


@define
class Place:
    """A name on the way to fixed directories, or one of them, or both."""

    cls: DirectoryClass | None = None
    below: dict[str, Place] = field(factory=dict)
    certain: frozenset[Tier] = frozenset()
    """With any of these tiers it is there on every machine."""

    def untouched(self, old: Machine, new: Machine) -> bool:
        """Whether nothing in or below it is touched when `new` follows `old`, if it has no others below it."""
        return not self.below and self.cls is not None and self.cls.untouched(old, new)

    def exists(self, machine: Machine, tiers: Collection[Tier]) -> bool:
        if not self.certain.isdisjoint(tiers):
            return True
        if self.cls is not None and self.cls.TIER in tiers and self.cls.exists(machine):
            return True
        return any(place.exists(machine, tiers) for place in self.below.values())


def places(fixed: tuple[DirectoryClass, ...]) -> Place:
    """The places of `fixed` as a trie."""
    top = Place()
    for cls in fixed:
        place = top
        for name in cls.WHAT.strip("/").split("/"):
            place = place.below.setdefault(name, Place())
        assert place.cls is None, f"{cls.WHAT} is taken"
        place.cls = cls
    _settle(top)
    return top


def _settle(place: Place) -> None:
    for below in place.below.values():
        _settle(below)
    decides = [base for base in place.cls.__mro__ if "exists" in vars(base)] if place.cls is not None else []
    mine = {place.cls.TIER} if place.cls is not None and decides == [Directory] else set()
    place.certain = frozenset(mine).union(*(below.certain for below in place.below.values()))


class Between(Directory[Place]):
    """A directory with fixed ones below it, and what its own class declares, if it has one."""

    BELOW: ClassVar[dict[str, type[Between]]] = {}
    """Names below it that are directories of another class than `Between`."""

    def _own(self, tiers: Collection[Tier]) -> Directory[Any] | None:
        cls = self.key.cls
        if cls is None or cls.TIER not in tiers or not cls.exists(self.machine):
            return None
        return cls(self.path, self.machine, None)

    def _there(self, name: str, place: Place, tiers: Collection[Tier]) -> bool:
        absent = self.machine.topology.absent
        return place.exists(self.machine, tiers) and not (absent and f"{self.path}/{name}" in absent)

    def _place(self, name: str, tiers: Collection[Tier]) -> Directory[Any] | None:
        place = self.key.below.get(name)
        if place is None or not self._there(name, place, tiers):
            return None
        between = self.BELOW.get(name, Between)(f"{self.path}/{name}", self.machine, place)
        return between if place.below else between._own(tiers)

    def lookup(self, name: str, tiers: Collection[Tier] = ALL_TIERS) -> Entry | None:
        place = self._place(name, tiers)
        if place is not None:
            return place
        own = self._own(tiers)
        return own and own.lookup(name, tiers)

    def compare(
        self, old: Self, tiers: Collection[Tier] = ALL_TIERS
    ) -> Iterator[tuple[str, Entry | None, Entry | None]]:
        for name, place in self.key.below.items():
            if not place.untouched(old.machine, self.machine):
                yield name, old._place(name, tiers), self._place(name, tiers)
        before, after = old._own(tiers), self._own(tiers)
        if before is not None and after is not None and not after.untouched(before.machine, after.machine):
            yield from after.compare(before, tiers)

    def entries(self, tiers: Collection[Tier] = ALL_TIERS) -> Iterator[tuple[str, int]]:
        for name, place in self.key.below.items():
            if self._there(name, place, tiers):
                yield name, stat.S_IFDIR
        own = self._own(tiers)
        if own is not None:
            yield from own.entries(tiers)

    def nlink(self, tiers: Collection[Tier] = ALL_TIERS) -> int:
        fixed = sum(self._there(name, place, tiers) for name, place in self.key.below.items())
        own = self._own(tiers)
        return fixed + (own.nlink(tiers) if own is not None else 2)


class SysfsRoot(Between):
    """``/sys``."""

    MODE = stat.S_IFDIR | 0o555


class Root(Between):
    """The sysroot: ``sys``, ``proc``, ``dev``."""

    TOP = places(FIXED)
    BELOW: ClassVar[dict[str, type[Between]]] = {"sys": SysfsRoot}

    def __init__(self, path: str, machine: Machine, key: Any) -> None:
        super().__init__(path, machine, self.TOP)
