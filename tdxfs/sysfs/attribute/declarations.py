"""The kinds of declarations: what a class of directories says of the entries in it."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast

from attrs import define

from tdxfs.delta import differing
from tdxfs.errors import InvalidValue, NotPermitted
from tdxfs.model import PAGE_SIZE, Build, Machine, kernel_at_least
from tdxfs.sysfs.attribute.entry import UNSET, Entry, File, Link, Reader, Shape, Tier
from tdxfs.sysfs.codec import Codec, Records

if TYPE_CHECKING:
    from tdxfs.sysfs.attribute.directory import Directory

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D", bound="Directory[Any]")
DirectoryClass: TypeAlias = "type[Directory[Any]]"


@define(eq=False)
class Declared:
    """What every kind of declaration has: who shows it, and since when."""

    name: str = ""
    doc: str = ""
    tier: Tier = Tier.KERNEL
    since: str = ""
    """First kernel that has it, "" for all."""
    until: str = ""
    """First kernel that lacks it again, "" for none."""

    @property
    def label(self) -> str:
        """Its name in the ABI text."""
        return self.name

    def on(self, cls: DirectoryClass, build: Build, tiers: Collection[Tier]) -> bool:
        """Whether the kernel has it in directories of `cls`, and a mount of these tiers shows it."""
        if self.tier not in tiers:
            return False
        what = f"{cls.WHAT}/{self.label}"
        if what in build.absent:
            return self.needed(tiers)
        return what in build.present or (
            (not self.since or kernel_at_least(build.kernel, self.since))
            and (not self.until or not kernel_at_least(build.kernel, self.until))
        )

    def needed(self, tiers: Collection[Tier]) -> bool:
        """Whether it is shown although the kernel's configuration leaves it out."""
        return False

    def shape(self, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        """What stat(2) says of it wherever it is there; None: that depends on the directory."""
        return None

    def adopt(self, owner: DirectoryClass, name: str) -> None:
        """Take the name and the tier of the class that declares it."""
        self.name = self.name or name
        if owner.TIER is not Tier.KERNEL:
            self.tier = owner.TIER


@define(eq=False)
class Attribute(Declared, Generic[D, V]):
    """One file, declared once; reads like a property on its directory."""

    codec: Codec[V] = UNSET
    mode: int = 0o444
    size: int | Callable[[Machine], int] = PAGE_SIZE
    reader: Reader = Reader.TEXT
    notifies: bool = False
    """Whether the kernel calls sysfs_notify() when the value changes."""
    rdev: Callable[[D], int] | None = None
    type: int = stat.S_IFREG
    show_value: Callable[[D], V] = UNSET
    store_value: Callable[[D, Any], Machine] | None = None
    takes: Codec[Any] | None = None
    """The format of what is written, where it is not that of what is read."""
    is_visible: Callable[[D], bool] | None = None
    dynamic_mode: Callable[[D], int] | None = None
    sampled: bool = False

    def __get__(self, directory: D | None, owner: Any) -> Any:
        return self if directory is None else self.show_value(directory)

    def store(self, change: Callable[[D, Any], Machine]) -> Callable[[D, Any], Machine]:
        """Decorator: the machine that a written value makes, or a Refusal."""
        self.store_value = change
        return change

    def visible(self, test: Callable[[D], bool]) -> Callable[[D], bool]:
        """Decorator: the file is absent where this says no."""
        self.is_visible = test
        return test

    def mode_of(self, mode: Callable[[D], int]) -> Callable[[D], int]:
        """Decorator: permission bits that depend on the object."""
        self.dynamic_mode = mode
        return mode

    def there(self, directory: D) -> bool:
        return self.is_visible is None or self.is_visible(directory)

    def shape(self, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        if self.dynamic_mode or self.rdev or self.sampled:
            return None
        return Shape(self.type | self.mode, self.size if isinstance(self.size, int) else self.size(machine))

    def entry(self, directory: D) -> File | None:
        if not self.there(directory):
            return None
        size = self.size if isinstance(self.size, int) else self.size(directory.machine)
        mode = self.mode if self.dynamic_mode is None else self.dynamic_mode(directory)
        rdev = 0 if self.rdev is None else self.rdev(directory)

        def show() -> bytes:
            return self.codec.show(self.show_value(directory))

        def store(data: bytes) -> Machine:
            if self.store_value is None:
                return _no_store(data)
            return self.store_value(directory, (self.takes or self.codec).parse(data))

        def records() -> Records:
            return cast(Records, self.show_value(directory))

        streams = self.reader is Reader.RECORDS
        return File(
            self.type | mode, size, show, store, self.reader, rdev,
            sampled=self.sampled, notifies=self.notifies, records=records if streams else None,
        )  # fmt: skip


def _no_store(data: bytes) -> Machine:
    raise InvalidValue("the file has no store method")


def no_show(directory: Any) -> Any:
    raise NotPermitted("write-only")


@define(eq=False)
class Edited(Declared, Generic[D]):
    """A file that the running system has, shown as the emulated machine would show it."""

    templates: tuple[str, ...] = ()
    """Paths of the files it is made of, ``{}`` for the directory's key."""
    edit: Callable[..., str] = UNSET
    mode: int = 0o444
    type: ClassVar[int] = stat.S_IFREG

    def there(self, directory: D) -> bool:
        return True

    def entry(self, directory: D) -> File:
        sources = tuple(template.format(directory.key) for template in self.templates)

        def edit(*texts: str) -> str:
            return self.edit(directory, *texts)

        return File(self.type | self.mode, 0, _no_content, _no_store, sources=sources, edit=edit)


@define(eq=False)
class LinkTo(Declared, Generic[D]):
    """One symbolic link to an absolute path of the tree, or absent (None)."""

    target: Callable[[D], str | None] = UNSET
    type: ClassVar[int] = stat.S_IFLNK

    def __get__(self, directory: D | None, owner: Any) -> Any:
        return self if directory is None else self.target(directory)

    def there(self, directory: D) -> bool:
        return self.target(directory) is not None

    def shape(self, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        return Shape(Link.mode)

    def entry(self, directory: D) -> Link | None:
        target = self.target(directory)
        return None if target is None else Link(target, directory.path)


@define(eq=False)
class Subdirectory(Declared, Generic[D]):
    """One subdirectory of a fixed name, over the same key."""

    cls: DirectoryClass = UNSET
    is_visible: Callable[[D], bool] | None = None
    type: ClassVar[int] = stat.S_IFDIR

    def there(self, directory: D) -> bool:
        return self.cls.exists(directory.machine) if self.is_visible is None else self.is_visible(directory)

    def shape(self, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        return self.cls.uniform(machine, tiers)

    def entry(self, directory: D) -> Directory[Any] | None:
        if not self.there(directory):
            return None
        return self.cls(f"{directory.path}/{self.name}", directory.machine, directory.key)

    def needed(self, tiers: Collection[Tier]) -> bool:
        # for what the other tiers have in it
        return any(entry.tier in tiers and entry.tier is not Tier.KERNEL for entry in self.cls.DECLARED.values())


@define(eq=False)
class Family(Declared, Generic[D]):
    """Entries that share a template, one per key: ``memory<id>``, ``dax<region>.<id>``."""

    template: str = ""
    keys: Callable[[D], Collection[Any]] = UNSET
    pattern: re.Pattern[str] = UNSET
    format: Callable[..., str] = UNSET
    single: bool = True
    text: bool = False
    """Whether keys are text, not numbers: PCI addresses."""
    counted: bool = True
    """Whether a key is one number."""

    def __attrs_post_init__(self) -> None:
        parts = re.split(r"<[^>]*>", self.template)
        number = "(.+)" if self.text else "(0|[1-9][0-9]*)"
        self.pattern = re.compile(number.join(map(re.escape, parts)))
        self.format = "{}".join(parts).format
        self.single = len(parts) == 2
        self.counted = self.single and not self.text

    @property
    def label(self) -> str:
        return self.template

    def __get__(self, directory: D | None, owner: Any) -> Any:
        return self if directory is None else self.keys(directory)

    def name_of(self, key: Any) -> str:
        return self.format(key) if self.single else self.format(*key)

    def key_of(self, name: str) -> Any:
        match = self.pattern.fullmatch(name)
        return None if match is None else self._key(match)

    def _key(self, match: re.Match[str]) -> Any:
        if self.text:
            return match[1]
        return int(match[1]) if self.single else tuple(map(int, match.groups()))

    def find(self, directory: D, name: str) -> Any:
        """The key that `name` stands for, or None."""
        match = self.pattern.fullmatch(name)
        if match is None:
            return None
        key = int(match[1]) if self.counted else self._key(match)
        return key if key in self.keys(directory) else None

    def names(self, directory: D) -> Iterator[str]:
        return map(self.name_of, self.keys(directory))

    def compare(self, old: D, new: D) -> Iterator[tuple[str, Entry | None, Entry | None]]:
        """What `Directory.compare` says, of this family."""
        before, after = self.keys(old), self.keys(new)
        for key in differing(before, after):
            yield self._both(old, new, key, key in before, key in after)

    def _both(self, old: D, new: D, key: Any, was: bool, now: bool) -> tuple[str, Entry | None, Entry | None]:
        name = self.name_of(key)
        make: Callable[[D, str, Any], Entry] = cast(Any, self).make
        return name, make(old, name, key) if was else None, make(new, name, key) if now else None


@define(eq=False)
class Directories(Family[D]):
    """A family of subdirectories."""

    cls: DirectoryClass = UNSET
    nested: bool = False
    """Whether the child's key is (this directory's key, its own)."""
    type: ClassVar[int] = stat.S_IFDIR

    def compare(self, old: D, new: D) -> Iterator[tuple[str, Entry | None, Entry | None]]:
        yield from super().compare(old, new)
        before, after = self.keys(old), self.keys(new)
        touched = self.cls.touched(old.machine, new.machine)
        if touched is None:
            keys: Iterable[Any] = after
        elif self.nested:
            keys = (key for owner, key in touched if owner == new.key)
        else:
            keys = touched
        for key in keys:
            if key in before and key in after:
                yield self._both(old, new, key, True, True)

    def shape(self, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        return self.cls.uniform(machine, tiers)

    def make(self, directory: D, name: str, key: Any) -> Directory[Any]:
        return self.cls(f"{directory.path}/{name}", directory.machine, (directory.key, key) if self.nested else key)


@define(eq=False)
class Links(Family[D]):
    """A family of symbolic links."""

    to: Callable[[Machine, Any], str] = UNSET
    type: ClassVar[int] = stat.S_IFLNK

    def shape(self, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        return Shape(Link.mode)

    def make(self, directory: D, name: str, key: Any) -> Link:
        return Link(self.to(directory.machine, key), directory.path)


@define(eq=False)
class Files(Family[D]):
    """A family of files of one codec: ``node<id>`` under ``weighted_interleave``."""

    codec: Codec[Any] = UNSET
    mode: int = 0o444
    size: int = PAGE_SIZE
    value: Callable[[D, Any], Any] = UNSET
    takes: Codec[Any] | None = None
    store_value: Callable[[D, Any, Any], Machine] | None = None
    type: ClassVar[int] = stat.S_IFREG

    def shows(self, value: Callable[[D, Any], Any]) -> Callable[[D, Any], Any]:
        """Decorator: the value of the file of one key."""
        self.value = value
        return value

    def stores(self, change: Callable[[D, Any, Any], Machine]) -> Callable[[D, Any, Any], Machine]:
        """Decorator: the machine that a value written to the file of one key makes, or a Refusal."""
        self.store_value = change
        return change

    def make(self, directory: D, name: str, key: Any) -> File:
        def show() -> bytes:
            return self.codec.show(self.value(directory, key))

        def store(data: bytes) -> Machine:
            assert self.store_value is not None, f"{name} cannot be written"
            return self.store_value(directory, key, (self.takes or self.codec).parse(data))

        return File(stat.S_IFREG | self.mode, self.size, show, store)


def _no_content() -> bytes:
    return b""


@define(eq=False)
class MemoryFiles(Family[D]):
    """A family of files that are devices' memory, mode 0600."""

    bytes_of: Callable[[D, Any], int] = UNSET
    """Size of the device of one key."""
    no_read: Callable[[], bytes] = UNSET
    """Raises what read(2) of it is refused with."""
    may_open: Callable[[D, Any], None] = UNSET
    """Raises what open(2) of the device of one key is refused with, if it is."""
    type: ClassVar[int] = stat.S_IFREG

    def make(self, directory: D, name: str, key: Any) -> File:
        file = File(stat.S_IFREG | 0o600, self.bytes_of(directory, key), self.no_read, _no_store, Reader.MEMORY)
        file.may_open = partial(self.may_open, directory, key)
        return file

    def compare(self, old: D, new: D) -> Iterator[tuple[str, Entry | None, Entry | None]]:
        """Those that came and went, and those of another size."""
        yield from super().compare(old, new)
        before, after = self.keys(old), self.keys(new)
        for key in after if before is not after else ():
            if key in before and self.bytes_of(old, key) != self.bytes_of(new, key):
                yield self._both(old, new, key, True, True)
