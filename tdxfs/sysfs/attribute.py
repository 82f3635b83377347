"""The declaration machinery: a directory is a class, a file in it is declared like a property.

::

    class NodeDir(Directory[int]):
        '''A NUMA node.'''

        WHAT = "/sys/devices/system/node/node<id>"

        @ro(LIST, size=cpulist_size)
        def cpulist(self) -> frozenset[int]:
            '''Online CPUs of the node.'''
            return ...

        @link
        def subsystem(self) -> str:
            '''The node bus.'''
            return "/sys/bus/node"

        @links("memory<id>", block_path)
        def memory_blocks(self) -> Collection[int]:
            '''Memory blocks that lie in the node.'''
            return ...

        @rw(WORD)
        def state(self) -> str:
            '''online or offline.'''
            return ...

        @state.store
        def _set_state(self, word: str) -> Machine:
            return transitions.set_block_state(self.machine, self.key, word)

One declaration gives the file, its mode and size, its absence (`visible`, `since`, `until`,
`tier`), its ABI text (the docstring), its JSON value and its parser (the codec).

A `Directory` is a view: (path, machine, key). It is made when somebody looks, holds nothing,
and resolves one name at a time; a family of a million children is a collection of keys.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from functools import lru_cache, partial
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar, cast

from attrs import define, frozen

from tdxfs.delta import differing
from tdxfs.errors import InvalidValue, NotPermitted, Refusal
from tdxfs.model import PAGE_SIZE, Build, Machine, kernel_at_least
from tdxfs.sysfs.codec import Codec, Records

UNSET: Any = None
"""Default of what every declaration is given."""
K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D", bound="Directory[Any]")
DirectoryClass: TypeAlias = "type[Directory[Any]]"


class Tier(Enum):
    """Where an entry comes from; ``--abi`` chooses which are shown."""

    KERNEL = "kernel"
    """Exists in Linux, byte for byte."""
    PROPOSED = "proposed"
    """The ABI that the discussion asks for."""
    EMULATOR = "emulator"
    """Only tdxfs."""


ALL_TIERS = frozenset(Tier)


class Reader(Enum):
    """How read(2) serves a file's text."""

    TEXT = "text"
    """seq_file: any offset, cut at PAGE_SIZE - 1 for sysfs files."""
    CPUMASK = "cpumask"
    """cpumap_print_to_pagebuf(): short reads, EPERM past the end (facts: sysfs-semantics 7.2)."""
    RECORDS = "records"
    """One record per read(2), as /dev/kmsg; at the end 0, not a wait: poll(2) waits for the next one."""
    MEMORY = "memory"
    """A device's memory: bytes at offsets, to be mapped; who opens it for reading only gets what it shows."""
    KVM = "kvm"
    """ioctls, as /dev/kvm."""


@define(eq=False)
class File:
    """A file of the tree: what stat says, and how it is shown."""

    mode: int
    """Type and permission bits."""
    size: int
    show: Callable[[], bytes]
    """The whole content, made anew; raises Refusal when the kernel would."""
    store: Callable[[bytes], Machine]
    """One write(2): the machine that it makes; raises Refusal when the kernel would."""
    reader: Reader = Reader.TEXT
    rdev: int = 0
    sampled: bool = False
    """Whether it speaks of what running tasks hold: they are looked at before it is shown."""
    sources: tuple[str, ...] = ()
    """Files of the running system that `edit` changes into what it shows; none: `show` makes it."""
    edit: Callable[..., str] = UNSET
    """Their texts -> its own."""
    notifies: bool = False
    """Whether poll(2) reports a change of what it shows."""
    records: Callable[[], Records] | None = None
    """What a file of `Reader.RECORDS` is read from."""
    may_open: Callable[[], None] | None = None
    """Raises the Refusal that open(2) gets; None: it opens."""
    nlink: ClassVar[int] = 1


@define(eq=False)
class Link:
    """A symbolic link."""

    to: str
    """The absolute path it leads to."""
    directory: str
    """The path of the directory it is in."""
    mode: ClassVar[int] = stat.S_IFLNK | 0o777
    size: ClassVar[int] = 0
    nlink: ClassVar[int] = 1
    rdev: ClassVar[int] = 0

    @property
    def target(self) -> str:
        """The text of the link, relative as the kernel makes it."""
        return relative(self.to, self.directory)


Entry: TypeAlias = "File | Link | Directory[Any]"


@frozen
class Shape:
    """What stat(2) says of an entry that has no device number."""

    mode: int
    """Type and permission bits."""
    size: int = 0
    nlink: int = 1


@frozen
class Shapes:
    """What is the same in every directory of a class."""

    declared: dict[str, tuple[Shape | None, Callable[[Any], bool]]]
    """Name -> its shape, and whether it is there in a directory."""
    families: tuple[tuple[Callable[[Any, str], Any], Shape | None], ...]
    """What finds a name's key in a directory, and the shape of what has one."""


@define(eq=False)
class _Declared:
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
class Attribute(_Declared, Generic[D, V]):
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


def _no_show(directory: Any) -> Any:
    raise NotPermitted("write-only")


@define(eq=False)
class Edited(_Declared, Generic[D]):
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
class LinkTo(_Declared, Generic[D]):
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
class Subdirectory(_Declared, Generic[D]):
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
class _Family(_Declared, Generic[D]):
    """Entries that share a template, one per key: ``memory<id>``, ``dax<region>.<id>``."""

    template: str = ""
    keys: Callable[[D], Collection[Any]] = UNSET
    pattern: re.Pattern[str] = UNSET
    format: Callable[..., str] = UNSET
    single: bool = True
    text: bool = False
    """Whether keys are text, not numbers: PCI addresses."""

    def __attrs_post_init__(self) -> None:
        parts = re.split(r"<[^>]*>", self.template)
        number = "(.+)" if self.text else "(0|[1-9][0-9]*)"
        self.pattern = re.compile(number.join(map(re.escape, parts)))
        self.format = "{}".join(parts).format
        self.single = len(parts) == 2

    @property
    def label(self) -> str:
        return self.template

    def __get__(self, directory: D | None, owner: Any) -> Any:
        return self if directory is None else self.keys(directory)

    def name_of(self, key: Any) -> str:
        return self.format(key) if self.single else self.format(*key)

    def key_of(self, name: str) -> Any:
        match = self.pattern.fullmatch(name)
        if match is None:
            return None
        if self.text:
            return match[1]
        return int(match[1]) if self.single else tuple(map(int, match.groups()))

    def find(self, directory: D, name: str) -> Any:
        """The key that `name` stands for, or None."""
        key = self.key_of(name)
        return key if key is not None and key in self.keys(directory) else None

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
class Directories(_Family[D]):
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
class Links(_Family[D]):
    """A family of symbolic links."""

    to: Callable[[Machine, Any], str] = UNSET
    type: ClassVar[int] = stat.S_IFLNK

    def shape(self, machine: Machine, tiers: Collection[Tier]) -> Shape | None:
        return Shape(Link.mode)

    def make(self, directory: D, name: str, key: Any) -> Link:
        return Link(self.to(directory.machine, key), directory.path)


@define(eq=False)
class Files(_Family[D]):
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
class MemoryFiles(_Family[D]):
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


def relative(target: str, directory: str) -> str:
    """The relative link text from `directory` to `target`, as sysfs_create_link() makes it."""
    to, here = target.split("/"), directory.split("/")
    common = 0
    # the target itself is never what both share, not even for a link from below it
    while common < min(len(to) - 1, len(here)) and to[common] == here[common]:
        common += 1
    return "/".join([".."] * (len(here) - common) + to[common:])


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
    """Whether what it holds depends on the tasks of the machine, which come and go all the time."""
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
            if isinstance(value, _Declared):
                value.adopt(cls, name)
                if isinstance(value, _Family):
                    families.append(cast(Any, value))
                else:
                    declared[value.name] = cast(Any, value)
        cls.DECLARED, cls.FAMILIES = declared, tuple(families)

    FOLLOWS: ClassVar[Any] = None
    """The function of `delta` that says what is `touched`; None: nothing where all is fixed, otherwise anything."""
    FLEETING: ClassVar[bool] = False
    """Whether its entries are too dear to compare: at a change the kernel forgets all that it knows of them."""

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
            {name: (one.shape(self.machine, tiers), one.there) for name, one in shown.declared.items()},
            tuple((family.find, family.shape(self.machine, tiers)) for family in shown.families),
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


def _doc(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split())


def ro(
    codec: Codec[V],
    *,
    name: str = "",
    mode: int = 0o444,
    size: int | Callable[[Machine], int] = PAGE_SIZE,
    reader: Reader = Reader.TEXT,
    tier: Tier = Tier.KERNEL,
    since: str = "",
    until: str = "",
    sampled: bool = False,
    notifies: bool = False,
) -> Callable[[Callable[[D], V]], Attribute[D, V]]:
    """
    A file that is shown, 0444 unless `mode` says otherwise; the function returns its value. Before a `sampled` one
    is shown, the machine learns how much memory its tasks hold.
    """

    def declare(show: Callable[[D], V]) -> Attribute[D, V]:
        return Attribute(
            name=name, doc=_doc(show), tier=tier, since=since, until=until,
            codec=codec, mode=mode, size=size, reader=reader,
            show_value=show, sampled=sampled, notifies=notifies,
        )  # fmt: skip

    return declare


def rw(
    codec: Codec[V],
    *,
    takes: Codec[Any] | None = None,
    name: str = "",
    since: str = "",
    until: str = "",
    mode: int = 0o644,
) -> Callable[[Callable[[D], V]], Attribute[D, V]]:
    """A file that the kernel lets root write, 0644; `takes` is the format of what is written, if it is another."""

    def declare(show: Callable[[D], V]) -> Attribute[D, V]:
        attribute = ro(codec, name=name, mode=mode, since=since, until=until)(show)
        attribute.takes = takes
        return attribute

    return declare


def wo(codec: Codec[V], doc: str, *, since: str = "", until: str = "") -> Attribute[Any, V]:
    """A file that can only be written: 0200."""
    return Attribute(doc=doc, since=since, until=until, codec=codec, mode=0o200, show_value=_no_show)


def edited(*templates: str, mode: int = 0o444) -> Callable[[Callable[..., str]], Edited[Any]]:
    """A file made from those of the running system at `templates`; the function gets their texts."""

    def declare(edit: Callable[..., str]) -> Edited[Any]:
        return Edited(doc=_doc(edit), templates=templates, edit=edit, mode=mode)

    return declare


def link(target: Callable[[D], str | None]) -> LinkTo[D]:
    """A symbolic link; the function returns the absolute path it leads to, or None."""
    return LinkTo(doc=_doc(target), target=target)


def subdirectory(
    cls: DirectoryClass, *, name: str = "", tier: Tier = Tier.KERNEL, since: str = "", until: str = ""
) -> Callable[[Callable[[D], bool]], Subdirectory[D]]:
    """A subdirectory over the same key, there when the decorated function says so."""

    def declare(test: Callable[[D], bool]) -> Subdirectory[D]:
        return Subdirectory(name=name, doc=_doc(test), tier=tier, since=since, until=until, cls=cls, is_visible=test)

    return declare


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


def always(cls: DirectoryClass, *, name: str = "", tier: Tier = Tier.KERNEL, since: str = "") -> Subdirectory[Any]:
    """A subdirectory over the same key that is always there."""
    return Subdirectory(name=name, doc=_doc(cast(Any, cls)), tier=tier, since=since, cls=cls)


def directories(
    template: str, cls: DirectoryClass, *, nested: bool = False, text: bool = False, tier: Tier = Tier.KERNEL
) -> Callable[[Callable[[D], Collection[Any]]], Directories[D]]:
    """
    A family of subdirectories, one per key that the decorated function returns;
    `nested` ones get (this directory's key, their own) as theirs.
    """

    def declare(keys: Callable[[D], Collection[Any]]) -> Directories[D]:
        return Directories(doc=_doc(keys), tier=tier, template=template, keys=keys, cls=cls, nested=nested, text=text)

    return declare


def links(
    template: str, to: Callable[[Machine, Any], str], *, text: bool = False
) -> Callable[[Callable[[D], Collection[Any]]], Links[D]]:
    """A family of links, one per key, to the path that ``to(machine, key)`` gives."""

    def declare(keys: Callable[[D], Collection[Any]]) -> Links[D]:
        return Links(doc=_doc(keys), template=template, keys=keys, to=to, text=text)

    return declare


def files(
    template: str,
    codec: Codec[Any],
    *,
    takes: Codec[Any] | None = None,
    mode: int = 0o444,
    size: int = PAGE_SIZE,
    tier: Tier = Tier.KERNEL,
    since: str = "",
) -> Callable[[Callable[[D], Collection[Any]]], Files[D]]:
    """A family of files, one per key; `Files.shows` gives their values."""

    def declare(keys: Callable[[D], Collection[Any]]) -> Files[D]:
        return Files(
            doc=_doc(keys), tier=tier, since=since, template=template, keys=keys,
            codec=codec, takes=takes, mode=mode, size=size,
        )  # fmt: skip

    return declare


@frozen
class Documented:
    """One entry of the ABI text."""

    what: str
    declared: _Declared
    owner: DirectoryClass


def documented(classes: Iterable[DirectoryClass]) -> Iterator[Documented]:
    """Every declared entry of `classes`, in order of declaration."""
    for cls in classes:
        for declared in cls.DECLARED.values():
            yield Documented(f"{cls.WHAT}/{declared.label}", declared, cls)
        for family in cls.FAMILIES:
            yield Documented(f"{cls.WHAT}/{family.label}", family, cls)


def value_of(directory: Directory[Any], name: str) -> Any:
    """The JSON value of attribute `name`; None where it is absent or cannot be shown."""
    attribute = directory.DECLARED.get(name)
    if not isinstance(attribute, Attribute) or not attribute.there(directory):
        return None
    try:
        return attribute.codec.plain(attribute.show_value(directory))
    except Refusal:
        return None
