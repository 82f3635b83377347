"""Directories: views over a machine and one of its objects."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from attrs import frozen

from tdxfs.model import Build, Machine
from tdxfs.sysfs.attribute.declarations import (
    Attribute,
    Declared,
    Directories,
    DirectoryClass,
    Edited,
    Family,
    Files,
    Links,
    LinkTo,
    MemoryFiles,
    Subdirectory,
)
from tdxfs.sysfs.attribute.entry import ALL_TIERS, Entry, Shape, Shapes, Tier

K = TypeVar("K")


class Directory(Generic[K]):
    """
    A directory of the emulated tree over one object. Subclasses declare its
    entries; the class docstring says what the directory is.
    """

    __slots__ = ("key", "machine", "path")

    WHAT: ClassVar[str] = ""
    """Its path as the ABI documents write it, with ``<id>`` for what varies."""
    TIER: ClassVar[Tier] = Tier.KERNEL
    """The tier of every declaration in it that does not say otherwise."""
    SHARED: ClassVar[bool] = False
    """Whether a running system has entries in it that the model knows nothing of (`tdxfs run` shows both)."""
    OF_TASKS: ClassVar[bool] = False
    """
    Whether what it holds depends on the tasks of the machine, which come and go all the time: the kernel may not keep
    its names.
    """
    MODE: ClassVar[int] = stat.S_IFDIR | 0o755
    DECLARED: ClassVar[dict[str, Attribute[Any, Any] | Edited[Any] | LinkTo[Any] | Subdirectory[Any]]] = {}
    FAMILIES: ClassVar[tuple[Directories[Any] | Links[Any] | Files[Any] | MemoryFiles[Any], ...]] = ()

    def __init__(self, path: str, machine: Machine, key: K) -> None:
        self.path = path
        self.machine = machine
        self.key = key

    def __init_subclass__(cls) -> None:
        declared = dict(cls.DECLARED)
        families = list(cls.FAMILIES)
        for name, value in list(vars(cls).items()):
            if isinstance(value, Declared):
                if hasattr(Directory, name):
                    raise TypeError(
                        f"{cls.__name__}.{name} hides Directory.{name}: call it {name}_, with name={name!r}"
                    )
                value.adopt(cls, name)
                if isinstance(value, Family):
                    families.append(cast(Any, value))
                else:
                    declared[value.name] = cast(Any, value)
        cls.DECLARED, cls.FAMILIES = declared, tuple(families)

    FOLLOWS: ClassVar[Any] = None
    """The function of `delta` that says what is `touched`; None: nothing where all is fixed, otherwise anything."""

    def __contains__(self, name: str) -> bool:
        """Whether Linux shows an entry called `name` in it."""
        return self.lookup(name, (Tier.KERNEL,)) is not None

    @classmethod
    def touched(cls, old: Machine, new: Machine) -> Collection[Any] | None:
        """
        Keys of those directories of this class in or below which names may come or go, or stat(2) say something
        else, when `new` follows `old`; None: any of them.
        """
        if cls.FOLLOWS is not None:
            return cast("Collection[Any] | None", cls.FOLLOWS(old, new))
        return () if fixed(cls) else None

    @classmethod
    def untouched(cls, old: Machine, new: Machine) -> bool:
        """Whether no directory of this class is touched."""
        touched = cls.touched(old, new)
        return touched is not None and not touched

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Whether a directory of a fixed place (`root.FIXED`) is there on this machine."""
        return True

    def _shown(self, tiers: Collection[Tier]) -> _Shown:
        return _shown(cast(Any, type(self)), self.machine.build, frozenset(tiers))

    def lookup(self, name: str, tiers: Collection[Tier] = ALL_TIERS) -> Entry | None:
        """The entry called `name`, or None: costs the same however many there are."""
        shown = self._shown(tiers)
        declared = shown.declared.get(name)
        if declared is not None:
            entry = declared.entry(self)
            if entry is not None:
                return entry
        for family in shown.families:
            key = family.find(self, name)
            if key is not None:
                return family.make(self, name, key)
        return None

    @classmethod
    def uniform(cls, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        """What stat(2) says of every directory of this class; None: that depends on the directory."""
        shown = _shown(cast(Any, cls), machine.build, frozenset(tiers))
        counted = any(isinstance(family, Directories) for family in shown.families)
        if counted or cls.OF_TASKS or cls.nlink is not Directory.nlink:
            return None
        if any(subdirectory.is_visible for subdirectory in shown.subdirectories):
            return None
        return Shape(cls.MODE, 0, 2 + sum(one.cls.exists(machine) for one in shown.subdirectories))

    def shapes(self, tiers: Collection[Tier] = ALL_TIERS) -> Shapes | None:
        """What of its entries is the same in every directory of its class; None: it looks names up its own way."""
        if type(self).lookup is not Directory.lookup:
            return None
        shown = self._shown(tiers)
        return Shapes(
            {
                name: (
                    one.shape(self.machine, tiers),
                    one.is_visible if isinstance(one, Attribute) else one.there,
                    one.entry,
                )
                for name, one in shown.declared.items()
            },
            tuple((family.find, family.shape(self.machine, tiers), family.make) for family in shown.families),
        )

    def entries(self, tiers: Collection[Tier] = ALL_TIERS) -> Iterator[tuple[str, int]]:
        """Name and file type (``S_IFDIR``…) of every entry, in no particular order."""
        shown = self._shown(tiers)
        for name, declared in shown.declared.items():
            if declared.there(self):
                yield name, declared.type
        for family in shown.families:
            for name in family.names(self):
                yield name, family.type

    def compare(
        self, old: Self, tiers: Collection[Tier] = ALL_TIERS
    ) -> Iterator[tuple[str, Entry | None, Entry | None]]:
        """
        The entries that may differ from those of `old`, the same directory of another machine: name, entry there
        and entry here, None where there is none. A subdirectory is one if anything below it may differ.
        """
        shown = self._shown(tiers)
        for declared in shown.variable:
            asleep = (
                isinstance(declared, Subdirectory)
                and declared.is_visible is None
                and declared.cls.untouched(old.machine, self.machine)
            )
            if not asleep:
                yield declared.name, declared.entry(old), declared.entry(self)
        for family in shown.families:
            yield from family.compare(old, self)

    def nlink(self, tiers: Collection[Tier] = ALL_TIERS) -> int:
        """2 + subdirectories, as kernfs counts; families are counted, not listed."""
        shown = self._shown(tiers)
        return (
            2
            + sum(subdirectory.there(self) for subdirectory in shown.subdirectories)
            + sum(len(family.keys(self)) for family in shown.families if isinstance(family, Directories))
        )


@frozen
class _Shown:
    """What of a class one kernel and one choice of tiers show."""

    declared: dict[str, Attribute[Any, Any] | Edited[Any] | LinkTo[Any] | Subdirectory[Any]]
    subdirectories: tuple[Subdirectory[Any], ...]
    families: tuple[Directories[Any] | Links[Any] | Files[Any] | MemoryFiles[Any], ...]
    variable: tuple[Attribute[Any, Any] | Edited[Any] | LinkTo[Any] | Subdirectory[Any], ...]


@lru_cache(maxsize=4096)
def _shown(cls: DirectoryClass, build: Build, tiers: frozenset[Tier]) -> _Shown:
    declared = {name: one for name, one in cls.DECLARED.items() if one.on(cls, build, tiers)}
    return _Shown(
        declared,
        tuple(one for one in declared.values() if isinstance(one, Subdirectory)),
        tuple(family for family in cls.FAMILIES if family.on(cls, build, tiers)),
        tuple(one for one in variable(cls) if one.name in declared),
    )


def variable(cls: DirectoryClass) -> tuple[Attribute[Any, Any] | Edited[Any] | LinkTo[Any] | Subdirectory[Any], ...]:
    """The declarations of a class whose entry may depend on more than the kernel's version."""
    found = _VARIABLE.get(cls)
    if found is None:
        found = _VARIABLE[cls] = tuple(declared for declared in cls.DECLARED.values() if _varies(declared))
    return found


def _varies(declared: Attribute[Any, Any] | Edited[Any] | LinkTo[Any] | Subdirectory[Any]) -> bool:
    if isinstance(declared, Attribute):
        return (
            declared.is_visible is not None
            or declared.dynamic_mode is not None
            or declared.rdev is not None
            or not isinstance(declared.size, int)
        )
    if isinstance(declared, Subdirectory):
        return declared.is_visible is not None or not fixed(declared.cls)
    return isinstance(declared, LinkTo)


def fixed(cls: DirectoryClass) -> bool:
    """Whether nothing in or below a directory of a class ever comes, goes or changes its stat(2)."""
    return (
        not cls.FAMILIES
        and cls.compare is Directory.compare
        and all(isinstance(declared, LinkTo) for declared in variable(cls))
    )


_VARIABLE: dict[DirectoryClass, tuple[Attribute[Any, Any] | Edited[Any] | LinkTo[Any] | Subdirectory[Any], ...]] = {}


@frozen
class Documented:
    """One entry of the ABI text."""

    what: str
    declared: Declared
    owner: DirectoryClass


def documented(classes: Iterable[DirectoryClass]) -> Iterator[Documented]:
    """Every declared entry of `classes`, in order of declaration."""
    for cls in classes:
        for declared in cls.DECLARED.values():
            yield Documented(f"{cls.WHAT}/{declared.label}", declared, cls)
        for family in cls.FAMILIES:
            yield Documented(f"{cls.WHAT}/{family.label}", family, cls)
