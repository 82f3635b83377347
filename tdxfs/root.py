"""The root of the mount: which directories stand at a fixed place.

Every class in `FIXED` names its place in `WHAT`; the directories between them are made here.
A class that is not in `FIXED` hangs below one that is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from attrs import define, field

from tdxfs.model import Machine
from tdxfs.sysfs.attribute import ALL_TIERS, Directory, DirectoryClass, Entry, Tier

FIXED: tuple[DirectoryClass, ...] = ()


@define
class Place:
    """A name on the way to fixed directories, or one of them."""

    cls: DirectoryClass | None = None
    below: dict[str, Place] = field(factory=dict)

    def exists(self, machine: Machine, tiers: Collection[Tier]) -> bool:
        if self.cls is not None:
            return self.cls.TIER in tiers and self.cls.exists(machine)
        return any(place.exists(machine, tiers) for place in self.below.values())


def places(fixed: tuple[DirectoryClass, ...]) -> Place:
    top = Place()
    for cls in fixed:
        place = top
        for name in cls.WHAT.strip("/").split("/"):
            assert place.cls is None, f"{cls.WHAT} lies below another fixed directory"
            place = place.below.setdefault(name, Place())
        assert not place.below and place.cls is None, f"{cls.WHAT} is taken"
        place.cls = cls
    return top


class Between(Directory[Place]):
    """A directory on the way to fixed ones."""

    def lookup(self, name: str, tiers: Collection[Tier] = ALL_TIERS) -> Entry | None:
        place = self.key.below.get(name)
        if place is None or not place.exists(self.machine, tiers):
            return None
        path = f"{self.path}/{name}"
        if place.cls is not None:
            return place.cls(path, self.machine, None)
        return Between(path, self.machine, place)

    def entries(self, tiers: Collection[Tier] = ALL_TIERS) -> Iterator[tuple[str, int]]:
        for name, place in self.key.below.items():
            if place.exists(self.machine, tiers):
                yield name, self.MODE & 0o170000

    def nlink(self, tiers: Collection[Tier] = ALL_TIERS) -> int:
        return 2 + sum(1 for _ in self.entries(tiers))


class Root(Between):
    """The sysroot: ``sys``, ``proc``, ``dev``."""

    TOP = places(FIXED)

    def __init__(self, path: str, machine: Machine, key: Any) -> None:
        super().__init__(path, machine, self.TOP)
