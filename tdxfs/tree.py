"""Paths to entries, lazily: the tree that FUSE, the export and the tests look at.

The tree holds which Machine is current. A path is resolved along the path, never by
building a tree; a directory lists from the model's own sets. It knows nothing of NUMA.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache, partial
from threading import Lock
from typing import Any

from attrs import frozen

from tdxfs import delta, processes
from tdxfs.errors import AccessDenied, NoDevice, NoEntry, NotADirectory, Refusal
from tdxfs.model import PAGE_SIZE, Machine, changed
from tdxfs.pledge import kept
from tdxfs.sysfs.attribute import ALL_TIERS, Directory, Entry, File, Link, Tier
from tdxfs.uevents import following

SMALL = 64
"""Names of a directory that is worth remembering."""
LAST_OFFSET = 0x7FFFFFFF
"""d_off of the last entry of every directory, as kernfs (INT_MAX)."""


def name_hash(name: str) -> int:
    """
    31-bit hash by which kernfs orders a directory (``kernfs_name_hash`` without a
    namespace; facts: sysfs-semantics 4.1).
    """
    # names of one family differ in their last character: what stands before it is mixed once
    h = (_mix(_mixed(name[:-1]), name[-1:]) * 0x61C8864680B583EB & 0xFFFFFFFFFFFFFFFF) >> 32 & 0x7FFFFFFF
    return h + 2 if h < 2 else h if h < LAST_OFFSET else LAST_OFFSET - 1


def _mix(x: int, text: str) -> int:
    for byte in text.encode("utf-8", "surrogateescape"):
        x = (x + (byte << 4) + (byte >> 4)) * 11 & 0xFFFFFFFFFFFFFFFF
    return x


@lru_cache(maxsize=4096)
def _mixed(stem: str) -> int:
    return _mix(0, stem)


def path_number(path: str) -> int:
    """
    A 64 bit number, signed, that stands for a path, the same for one server: of ten million two share one in 1 case of
    200,000.
    """
    return hash(path) | 2


INODE_MASK = 0xFFFFFFFFFFFF


def inode_number(path: str) -> int:
    """
    st_ino of a path: 48 bits of its `path_number`, never 0. Links aside, two names of one object are one path, as
    with kernfs.
    """
    return path_number(path) & INODE_MASK


@frozen
class Stat:
    """The part of stat(2) that an entry decides."""

    mode: int
    """Type and permission bits."""
    size: int = 0
    rdev: int = 0


def stat_of(entry: Entry) -> Stat:
    """What stat(2) says of an entry; a directory's and a link's size is 0."""
    if isinstance(entry, Directory):
        return Stat(entry.MODE)
    return Stat(entry.mode, entry.size, entry.rdev)


@frozen(eq=False)
class Entries:
    """
    A directory as getdents sees it: sorted by hash; `offsets` are the entries' own hashes, one more where
    two are equal.
    """

    offsets: tuple[int, ...]
    names: tuple[str, ...]
    types: tuple[int, ...]
    """``S_IFDIR``, ``S_IFREG``, ``S_IFLNK``, ``S_IFCHR``."""

    def following(self, offset: int) -> Iterator[tuple[str, int, int]]:
        """
        Name, type and d_off of the entries whose hash is at least `offset`
        (``.`` and ``..`` are the caller's). d_off is the hash of the next entry.
        """
        for at in range(bisect_left(self.offsets, offset), len(self.names)):
            after = self.offsets[at + 1] if at + 1 < len(self.offsets) else LAST_OFFSET
            yield self.names[at], self.types[at], after

    @property
    def first(self) -> int:
        """d_off of ``..``."""
        return self.offsets[0] if self.offsets else LAST_OFFSET


def _has_lost(before: Machine, after: Machine) -> bool:
    # whether objects with files may be gone
    return (
        before.blocks.size > after.blocks.size
        or before.dax is not after.dax
        or before.topology is not after.topology
        or not before.cpus_online <= after.cpus_online
    )


def _increasing(offsets: Iterable[int]) -> Iterator[int]:
    # kernfs remembers where a descriptor is among names of one hash; FUSE has only the number
    last = 0
    for offset in offsets:
        last = max(offset, last + 1)
        yield last


def _ordered(rows: Iterable[tuple[str, int]]) -> Entries:
    # names and types as kernfs orders them
    ordered = sorted((name_hash(name), name, kind) for name, kind in rows)
    if not ordered:
        return Entries((), (), ())
    offsets, names, types = zip(*ordered, strict=True)
    return Entries(tuple(_increasing(offsets)), names, types)


_ordered_again = lru_cache(maxsize=1024)(_ordered)
"""Many directories hold the same names."""


class Tree:
    """The emulated file tree of the current machine."""

    def __init__(self, root: type[Directory[Any]], machine: Machine, tiers: Collection[Tier] = ALL_TIERS) -> None:
        self._root = root
        self._machine = machine
        self._lock = Lock()
        self.tiers = frozenset(tiers)
        self.generation = 0
        """Changes of the machine, those of its tasks alone aside."""
        self.told = 0
        """Changes of its tasks alone: only directories that are `OF_TASKS` and sampled files show another thing."""
        self.watchers: list[Callable[[Machine, Machine], None]] = []
        """
        Called with the machine before and after each change but those that nobody can wait for (`delta.unseen`), in
        order, while no other change can happen.
        """
        self.starting: list[Callable[[], None]] = []
        """Called once when the tree is mounted."""
        self.journal: Callable[[str, bytes, int], None] = lambda path, data, refused: None
        """Called with each write that changes the machine, before it does, and the errno of its refusal or 0."""

    @property
    def machine(self) -> Machine:
        return self._machine

    def apply(
        self, transition: Callable[[Machine], Machine], record: Callable[[int], None] = lambda refused: None
    ) -> None:
        """
        Make what `transition` makes of the current machine the current one. A Refusal passes through, after
        the machine that it leaves, if any, has become the current one. `record` is called before the machine
        becomes another, with the errno of the refusal or 0; what it raises leaves everything as it was. What the
        guests were promised is kept (`pledge`).
        """
        with self._lock:
            try:
                machine = kept(self._machine, transition(self._machine))
            except Refusal as refusal:
                if refusal.machine is not None:
                    self._become(refusal.machine, partial(record, refusal.errno or 0))
                raise
            self._become(machine, partial(record, 0))

    def _become(self, machine: Machine, record: Callable[[], None]) -> None:
        if machine is not self._machine:
            record()
            before = self._machine
            if delta.tasks_only(before, machine):
                self._follow_tasks(before, machine)
                return
            successor = machine.after(before)
            uevents = following(before, successor, self.root_of)
            self._machine = successor if uevents is successor.uevents else changed(successor, uevents=uevents)
            self.generation += 1
            if machine.knobs and _has_lost(before, machine):
                self._forget_knobs()
            for watcher in self.watchers:
                watcher(before, self._machine)

    def _follow_tasks(self, before: Machine, machine: Machine) -> None:
        # what only tasks changed has no uevents
        numbers = before.seen_numbers or before.conflict_numbers
        seen = not delta.unseen(before, machine)
        self._machine = changed(machine, generation=before.generation + seen, conflict_numbers=numbers)
        self.told += 1
        for watcher in self.watchers if seen else ():
            watcher(before, self._machine)

    def _forget_knobs(self) -> None:
        # what was written to files of objects that are gone is not there when their like comes
        gone = [path for path in self._machine.knobs if not self.has(path)]
        knobs = self._machine.knobs
        for path in gone:
            knobs = knobs.delete(path)
        self._machine = changed(self._machine, knobs=knobs) if gone else self._machine

    def has(self, path: str) -> bool:
        """Whether there is something at an absolute path."""
        try:
            self.lookup(path)
        except (NoEntry, NotADirectory):
            return False
        return True

    def sample(self) -> bool:
        """Look at the memory that running tasks hold; whether the machine is another one now."""
        before = self._machine
        if before.tasks:
            self.apply(processes.look)
        return self._machine is not before

    def write(self, path: str, data: bytes, *, internal: bool = False) -> int:
        """
        One write(2) of `data` to a file: one store, of a page at most. How many bytes it took; NoDevice if the
        file is gone, AccessDenied if its mode does not allow it, and whatever the store refuses. An `internal`
        write, which stands for some other system call, also reaches files that are not shown.
        """
        data = data[:PAGE_SIZE]

        def store(machine: Machine) -> Machine:
            try:
                _, entry = self.follow(path, ALL_TIERS if internal else self.tiers)
            except (NoEntry, NotADirectory):
                raise NoDevice(path) from None
            if not isinstance(entry, File):
                raise IsADirectoryError(path)
            if not entry.mode & 0o222:
                raise AccessDenied(path)
            return entry.store(data) if data else machine

        self.apply(store, lambda refused: self.journal(path, data, refused))
        return len(data)

    @property
    def root(self) -> Directory[Any]:
        return self.root_of(self._machine)

    def root_of(self, machine: Machine) -> Directory[Any]:
        """The root of the tree as it is on a machine."""
        return self._root("", machine, None)

    def lookup(self, path: str, tiers: Collection[Tier] | None = None) -> Entry:
        """
        The entry at an absolute path below the root ("/sys/devices"); links are
        not followed. NoEntry or NotADirectory as the kernel would. `tiers` are those shown unless given.
        """
        entry: Entry = self.root
        for name in path.split("/"):
            if not name:
                continue
            if not isinstance(entry, Directory):
                raise NotADirectory(path)
            found = entry.lookup(name, self.tiers if tiers is None else tiers)
            if found is None:
                raise NoEntry(path)
            entry = found
        return entry

    def follow(self, path: str, tiers: Collection[Tier] | None = None) -> tuple[str, Entry]:
        """The real path and entry that `path` leads to, symbolic links followed; `tiers` as in `lookup`."""
        shown = self.tiers if tiers is None else tiers
        todo = [part for part in reversed(path.split("/")) if part]
        names: list[str] = []
        above: list[Entry] = []
        here: Entry = self.root
        hops = 0
        while todo:
            part = todo.pop()
            if not isinstance(here, Directory):
                raise NotADirectory(path)
            if part == ".":
                continue
            if part == "..":
                if above:
                    names.pop()
                    here = above.pop()
                continue
            entry = here.lookup(part, shown)
            if entry is None:
                raise NoEntry(path)
            if isinstance(entry, Link):
                hops += 1
                if hops > 40:
                    raise NoEntry(path)
                todo.extend(p for p in reversed(entry.target.split("/")) if p)
            else:
                names.append(part)
                above.append(here)
                here = entry
        return "/" + "/".join(names), here

    def list(self, path: str) -> Entries:
        """What a directory holds, in kernfs's order."""
        entry = self.lookup(path)
        if not isinstance(entry, Directory):
            raise NotADirectory(path)
        return self.entries(entry)

    def entries(self, directory: Directory[Any]) -> Entries:
        """The same of a directory that has been looked up."""
        rows = tuple(directory.entries(self.tiers))
        return _ordered_again(rows) if len(rows) <= SMALL else _ordered(rows)

    def nlink(self, entry: Entry) -> int:
        return entry.nlink(self.tiers) if isinstance(entry, Directory) else entry.nlink

    def read(self, path: str) -> bytes:
        """The content of a file as one open and reads to the end give it."""
        _, entry = self.follow(path)
        if isinstance(entry, File) and entry.sampled and self.sample():
            _, entry = self.follow(path)
        if not isinstance(entry, File):
            raise IsADirectoryError(path)
        return content(entry)

    def walk(self, path: str = "/") -> Iterator[tuple[str, Entry]]:
        """Every path and entry below `path`, depth first, links not followed."""
        base = path.rstrip("/")
        entry = self.lookup(path)
        yield path, entry
        if isinstance(entry, Directory):
            for name in self.list(path).names:
                yield from self.walk(f"{base}/{name}")


def content(file: File) -> bytes:
    """One fresh show of `file`, cut as sysfs cuts it: PAGE_SIZE - 1 of a text attribute."""
    if file.sources:
        return file.edit(*map(processes.read, file.sources)).encode("utf-8", "surrogateescape")
    data = file.show()
    return data[: PAGE_SIZE - 1] if file.size == PAGE_SIZE and len(data) >= PAGE_SIZE else data
